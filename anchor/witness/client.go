package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/tlog"
)

// Client is a witness that is asked over HTTP. It is safe for concurrent use.
type Client struct {
	name, url string
	http      *http.Client
	timeout   time.Duration
}

var _ anchor.Accountable = (*Client)(nil)

// ClientOptions configures a [Client].
type ClientOptions struct {
	// HTTP makes the requests; http.DefaultClient if nil.
	HTTP *http.Client
	// Timeout bounds each request; DefaultTimeout if 0.
	Timeout time.Duration
}

// NewClient returns the witness of a name whose submission prefix is at url.
func NewClient(name, url string, o ClientOptions) *Client {
	if o.HTTP == nil {
		o.HTTP = http.DefaultClient
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return &Client{name, strings.TrimSuffix(url, "/"), o.HTTP, o.Timeout}
}

// Clients returns the witnesses of a trust policy that have a URL.
func Clients(p *anchor.Policy, o ClientOptions) []anchor.Witness {
	var out []anchor.Witness
	for _, w := range p.Witnesses {
		if w.URL != "" {
			out = append(out, NewClient(w.Name, w.URL, o))
		}
	}
	return out
}

// Name is the name that the client was made with.
func (c *Client) Name() string { return c.name }

// Cosign asks the witness with add-checkpoint; see [anchor.Witness].
func (c *Client) Cosign(ctx context.Context, old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	lines, err := c.add(limited, request{old, proof, checkpoint})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && limited.Err() != nil:
		return nil, fmt.Errorf("%w: no answer within %s", anchor.ErrUnavailable, c.timeout)
	}
	return lines, err
}

func (c *Client) add(ctx context.Context, r request) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/add-checkpoint", bytes.NewReader(r.encode()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	said := fmt.Sprintf("it answers %q: %.200q", resp.Status, bytes.TrimSpace(body))
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusConflict:
		// Before version 1.0.0 of the specification this also said that two trees
		// of one size differ.
		size, err := parseSize(strings.TrimSuffix(string(body), "\n"))
		if err == nil && size != r.old {
			return nil, &anchor.SizeError{Size: size}
		}
		if err == nil {
			return nil, fmt.Errorf("%w: %s", anchor.ErrFork, said)
		}
	case http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("%w: %s", anchor.ErrFork, said)
	case http.StatusForbidden, http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s", anchor.ErrUntrusted, said)
	}
	return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, errors.New(said))
}

// Latest asks for the newest checkpoint of a log that the witness cosigned; see
// [anchor.Accountable]. The error wraps anchor.ErrUnavailable if it shows none.
func (c *Client) Latest(ctx context.Context, origin string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/"+originHash(origin)+"/checkpoint", nil)
	if err != nil {
		return fail(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("it answers %q", resp.Status))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, anchor.MaxCheckpointSize+1))
	if err != nil {
		return fail(err)
	}
	return body, nil
}
