package pinning

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	recordKind  = "requests"
	maxWaiting  = 1000
	maxRequests = 100_000
	// maxBytes is how long the records of all requests may be.
	maxBytes = 64 << 20
)

var (
	errNotFound = errors.New("no such request")
	// errWaiting: too many requests wait.
	errWaiting = errors.New("too many requests wait for their turn")
	// errFull: too many requests are kept.
	errFull   = errors.New("too many pin requests are kept")
	errClosed = errors.New("the node is being stopped")
)

// load reads all requests, and removes pins that belong to none: a crash came between
// the removal of a request and that of its pin. A request that cannot be read is left
// where it is; nobody knows which pins are its own, so that none is removed meanwhile.
func (s *Server) load() error {
	ids, err := s.repo.Records(recordKind)
	if err != nil {
		return err
	}
	for _, id := range ids {
		r, err := s.read(id)
		if err != nil {
			s.unreadable = append(s.unreadable, fmt.Errorf("pin request meta/%s/%s: %w", recordKind, id, err))
			continue
		}
		if r.Status == pinning {
			r.Status = queued
		}
		s.requests = append(s.requests, r)
	}
	slices.SortFunc(s.requests, func(a, b *request) int { return a.Created.Compare(b.Created) })
	pins, err := s.repo.Pins()
	if err != nil {
		return err
	}
	var orphans []cid.Cid
	for _, p := range pins {
		if p.Owner == Owner {
			orphans = append(orphans, p.CID)
		}
	}
	return s.release(orphans...)
}

// read reads a request.
func (s *Server) read(id string) (*request, error) {
	data, err := s.repo.Record(recordKind, id)
	if err != nil {
		return nil, err
	}
	r := &request{ID: id, size: len(data)}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if r.cid, err = cid.Decode(r.Pin.CID); err == nil && !r.Status.valid() {
		err = fmt.Errorf("status %.100q", r.Status)
	}
	for _, text := range r.Keeps {
		if _, keepErr := cid.Decode(text); err == nil {
			err = keepErr
		}
	}
	return r, err
}

// save makes a request durable. The caller holds mu.
func (s *Server) save(r *request) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	r.size = len(data)
	return s.repo.PutRecord(recordKind, r.ID, data)
}

// find returns the request of an id. The caller holds mu.
func (s *Server) find(id string) (*request, error) {
	i := slices.IndexFunc(s.requests, func(r *request) bool { return r.ID == id })
	if i < 0 {
		return nil, errNotFound
	}
	return s.requests[i], nil
}

// add queues a request for a pin, in place of the request old if that is not "".
func (s *Server) add(p pin, c cid.Cid, old string) (pinStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var replaced *request
	if old != "" {
		var err error
		if replaced, err = s.find(old); err != nil {
			return pinStatus{}, err
		}
	}
	if err := s.room(replaced); err != nil {
		return pinStatus{}, err
	}
	id := make([]byte, 16)
	rand.Read(id) // does not fail
	r := &request{ID: hex.EncodeToString(id), Created: s.now(), Pin: p, Status: queued, cid: c}
	if replaced != nil {
		r.Keeps = replaced.Keeps
		if replaced.Status == pinned && replaced.cid != c {
			r.Keeps = append(slices.Clone(r.Keeps), replaced.Pin.CID)
		}
	}
	if err := s.save(r); err != nil {
		return pinStatus{}, err
	}
	s.requests = append(s.requests, r)
	s.changed.Broadcast()
	if replaced != nil {
		if err := s.remove(replaced); err != nil {
			return pinStatus{}, err
		}
	}
	return s.statusOf(r), nil
}

// room refuses what would be too much. The caller holds mu.
func (s *Server) room(replaced *request) error {
	if s.ctx.Err() != nil {
		return errClosed
	}
	waiting, size := 0, 0
	for _, r := range s.requests {
		if r == replaced {
			continue
		}
		size += r.size
		if r.Status.open() {
			waiting++
		}
	}
	if waiting >= maxWaiting {
		return errWaiting
	}
	if replaced == nil && len(s.requests) >= maxRequests || size >= maxBytes {
		return errFull
	}
	return nil
}

// now is a time that no request has. Clients page by it, and some of them know
// milliseconds only. The caller holds mu.
func (s *Server) now() time.Time {
	t := time.Now().UTC().Truncate(time.Millisecond)
	if n := len(s.requests); n > 0 && !t.After(s.requests[n-1].Created) {
		t = s.requests[n-1].Created.Add(time.Millisecond)
	}
	return t
}

func (s *Server) get(id string) (pinStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(id)
	if err != nil {
		return pinStatus{}, err
	}
	return s.statusOf(r), nil
}

// list returns the newest requests that match, and how many do.
func (s *Server) list(f filter) (results []pinStatus, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results = []pinStatus{}
	for _, r := range slices.Backward(s.requests) {
		if !f.matches(r) {
			continue
		}
		if count++; len(results) < f.limit {
			results = append(results, s.statusOf(r))
		}
	}
	return results, count
}

func (s *Server) delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(id)
	if err != nil {
		return err
	}
	return s.remove(r)
}

// remove ends a request and takes its pin away. The caller holds mu.
func (s *Server) remove(r *request) error {
	if err := s.repo.DeleteRecord(recordKind, r.ID); err != nil {
		return err
	}
	s.requests = slices.DeleteFunc(s.requests, func(x *request) bool { return x == r })
	if r.cancel != nil {
		r.cancel()
	}
	return s.release(append(r.kept(), r.cid)...)
}

// settle notes that a request is done: pinned, or failed because of err. The caller
// holds mu, and the DAG is complete and held.
func (s *Server) settle(ctx context.Context, r *request, err error) error {
	if err != nil {
		r.Status, r.Details = failed, cut(err.Error())
		return s.save(r)
	}
	if err := s.repo.PinFor(ctx, Owner, r.cid, r.Pin.Name); err != nil {
		return err
	}
	done := r.kept()
	r.Status, r.Details, r.Keeps = pinned, "", nil
	if err := s.save(r); err != nil {
		return err
	}
	return s.release(done...)
}

// release removes the pins of DAGs that no request is for any more; none while there are
// requests that cannot be read. The caller holds mu.
func (s *Server) release(cids ...cid.Cid) error {
	if len(s.unreadable) > 0 {
		return nil
	}
	needed := map[cid.Cid]bool{}
	for _, r := range s.requests {
		needed[r.cid] = true
		for _, c := range r.kept() {
			needed[c] = true
		}
	}
	var errs []error
	for _, c := range cids {
		if !needed[c] {
			errs = append(errs, s.repo.UnpinFor(Owner, c))
		}
	}
	return errors.Join(errs...)
}

// kept are the CIDs in Keeps.
func (r *request) kept() []cid.Cid {
	var out []cid.Cid
	for _, text := range r.Keeps {
		if c, err := cid.Decode(text); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// maxDelegates is how many addresses the specification lets a client be told.
const maxDelegates = 20

// statusOf is what a client is told of a request. The caller holds mu.
func (s *Server) statusOf(r *request) pinStatus {
	out := pinStatus{RequestID: r.ID, Status: r.Status, Created: r.Created, Pin: r.Pin, Delegates: []string{}}
	out.Delegates = append(out.Delegates, s.network.Addresses()...)
	out.Delegates = out.Delegates[:min(len(out.Delegates), maxDelegates)]
	if r.Details != "" {
		out.Info = map[string]string{"status_details": r.Details}
	}
	return out
}

// cut shortens a text that is kept and shown.
func cut(text string) string {
	const limit = 1000
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "..."
}
