package replication

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

const (
	// maxObjects bounds an answer that consists of JSON objects, in bytes.
	maxObjects = 1 << 20
	// maxErrorText bounds the text of an error.
	maxErrorText = 64 << 10
)

// streamError is the trailer in which kubo reports what went wrong after it had
// begun to answer with 200.
const streamError = "X-Stream-Error"

// command executes a command of kubo's RPC, and gives what it answers to read. An
// error that kubo reports, in whichever of its ways, wraps ErrRefused; that it was not
// reached, or did not finish, node.ErrUnreachable.
func (k *kubo) command(ctx context.Context, name string, args url.Values, body io.Reader, contentType string, read func(io.Reader) error) error {
	token, err := k.token.read()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url+"/api/v0/"+name+"?"+args.Encode(), body)
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", name, unreachable(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", name, asAnswer(resp.StatusCode, errorText(resp.Body)))
	}
	answer := &broken{Reader: resp.Body}
	err = read(answer)
	if answer.err == nil {
		// The trailer comes after the rest of the body.
		io.Copy(io.Discard, io.LimitReader(answer, maxObjects))
	}
	if answer.err != nil {
		return fmt.Errorf("%s: its answer was cut: %w", name, unreachable(ctx, answer.err))
	}
	if text := resp.Trailer.Get(streamError); text != "" {
		return fmt.Errorf("%w: %s: %s", ErrRefused, name, text)
	}
	return err
}

// broken remembers the error of a reader.
type broken struct {
	io.Reader
	err error
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// errorText is what a kubo node says with a status that is not 200: an object with a
// message, or plain text.
func errorText(r io.Reader) string {
	data, err := io.ReadAll(io.LimitReader(r, maxErrorText))
	if err != nil {
		return err.Error()
	}
	var o struct{ Message string }
	if json.Unmarshal(data, &o) == nil && o.Message != "" {
		return o.Message
	}
	return string(data)
}

// readObjects calls f for each of the JSON objects in an answer. One that reports an
// error is one.
func readObjects[T any](r io.Reader, f func(T) error) error {
	dec := json.NewDecoder(io.LimitReader(r, maxObjects))
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: its answer is not as expected: %w", ErrRefused, err)
		}
		var failed struct{ Message, Type string }
		if json.Unmarshal(raw, &failed) == nil && failed.Type == "error" {
			return fmt.Errorf("%w: %s", ErrRefused, failed.Message)
		}
		var o T
		if err := json.Unmarshal(raw, &o); err != nil {
			return fmt.Errorf("%w: its answer is not as expected: %w", ErrRefused, err)
		}
		if err := f(o); err != nil {
			return err
		}
	}
}
