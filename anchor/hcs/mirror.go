package hcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

const (
	// pageTries is how often a page is asked for, pageRetry the wait before the second
	// time, which doubles.
	pageTries = 3
	pageRetry = 250 * time.Millisecond
)

// mirror reads a topic from one mirror node, page by page, and checks each message as
// it comes. It is used by one goroutine at a time.
type mirror struct {
	name   string
	url    url.URL // of the topic's messages, without a query
	query  string  // of the next page; empty at the end
	client *http.Client
	topic  EntityID
	o      Options

	pending []Message // checked, not yet taken
	last    Position  // the last one checked; zero before the first
	shown   int64     // messages after Options.After
	known   bool      // Options.After was seen, or is the start
	spent   time.Duration
	err     error // why nothing more is read
}

// newMirrors prepares the mirrors, which must be of different hosts.
func newMirrors(topic EntityID, names []string, o Options) ([]*mirror, error) {
	if len(names) < MinMirrors {
		return nil, fmt.Errorf("%w: %d, at least %d are needed", ErrMirrors, len(names), MinMirrors)
	}
	client := &http.Client{
		Transport:     o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	hosts := map[string]bool{}
	var mirrors []*mirror
	for _, name := range names {
		u, host, err := anchor.ParseMirrorNode(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMirrors, err)
		}
		if hosts[host] {
			return nil, fmt.Errorf("%w: two of host %s; each must be somebody else's", ErrMirrors, host)
		}
		hosts[host] = true
		// The message known from earlier is asked for again: a mirror without it does not
		// show the topic as it was then.
		op := "gt"
		if o.After.Sequence > 0 {
			op = "gte"
		}
		mirrors = append(mirrors, &mirror{
			name: name, client: client, topic: topic, o: o, known: o.After.Sequence == 0,
			url:   *u.JoinPath("api/v1/topics", topic.String(), "messages"),
			query: fmt.Sprintf("limit=%d&order=asc&sequencenumber=%s:%d", pageMessages, op, o.After.Sequence),
		})
	}
	return mirrors, nil
}

// fill reads the next page and appends its messages to pending. What goes wrong is
// kept in err.
func (m *mirror) fill(ctx context.Context) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.o.MirrorTimeout-m.spent)
	defer cancel()
	m.err = func() error {
		p, err := m.page(ctx)
		if err != nil {
			return err
		}
		if m.query, err = m.nextQuery(p.next); err != nil {
			return err
		}
		for _, msg := range p.messages {
			if err := m.take(msg); err != nil {
				return err
			}
		}
		if m.query == "" && !m.known {
			return fmt.Errorf("%w: %d", ErrTruncated, m.o.After.Sequence)
		}
		return nil
	}()
	m.spent += time.Since(start)
}

// take checks the message that comes next.
func (m *mirror) take(msg Message) error {
	if !m.known {
		// Its running hash is known, and cannot be computed without the one before.
		if msg.Topic != m.topic || msg.Position != m.o.After {
			return &ChainError{m.name, m.o.After.Sequence, fmt.Errorf("it is not the message known, of running hash %v", m.o.After.RunningHash)}
		}
		m.known, m.last = true, msg.Position
		return nil
	}
	if err := msg.follows(m.topic, m.last); err != nil {
		return &ChainError{m.name, m.last.Sequence + 1, err}
	}
	if m.shown++; m.shown > m.o.MaxMessages {
		return fmt.Errorf("more than %d messages", m.o.MaxMessages)
	}
	m.pending, m.last = append(m.pending, msg), msg.Position
	return nil
}

// nextQuery returns the query of a link to the next page. Only the query is taken from
// it: it may name no other host, and no other path is asked for.
func (m *mirror) nextQuery(link string) (string, error) {
	if link == "" {
		return "", nil
	}
	u, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("link to the next page: %w", err)
	}
	if u.Host != "" && (u.Host != m.url.Host || u.Scheme != m.url.Scheme) ||
		u.Host == "" && (u.Scheme != "" || u.Opaque != "") ||
		!strings.HasSuffix(u.Path, "/topics/"+m.topic.String()+"/messages") || u.RawQuery == "" {
		return "", fmt.Errorf("link to the next page leads elsewhere: %q", link)
	}
	return u.RawQuery, nil
}

// page asks for the next page, again where the mirror is busy or the connection fails.
func (m *mirror) page(ctx context.Context) (page, error) {
	for try := 1; ; try++ {
		body, again, err := m.get(ctx)
		if err == nil {
			return parsePage(body)
		}
		if !again || try == pageTries {
			return page{}, err
		}
		select {
		case <-ctx.Done():
			return page{}, errors.Join(ctx.Err(), err)
		case <-time.After(pageRetry << (try - 1)):
		}
	}
}

// get makes one request, and tells whether another may have more luck.
func (m *mirror) get(ctx context.Context) (body []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.RequestTimeout)
	defer cancel()
	u := m.url
	u.RawQuery = m.query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := m.client.Do(req)
	if err != nil {
		return nil, true, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		again = res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500
		return nil, again, fmt.Errorf("status %s", res.Status)
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, maxPage+1))
	if err != nil {
		return nil, true, err
	}
	if len(body) > maxPage {
		return nil, false, fmt.Errorf("page of more than %d bytes", maxPage)
	}
	return body, false, nil
}
