package pinning

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// fetchLimit bounds one try to fetch a DAG. What has come by then stays for the next.
const fetchLimit = 6 * time.Hour

// storePause is that before a request is completed again after the repository could
// not be written.
const storePause = time.Minute

// work fulfills requests until the server is closed.
func (s *Server) work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		r := s.next()
		if r == nil {
			return
		}
		var ctx context.Context
		ctx, r.cancel = context.WithTimeout(s.ctx, fetchLimit)
		s.try(ctx, r)
		r.cancel()
		r.cancel = nil
	}
}

// next waits for a request that is to be tried now, and marks it as pinning. It
// returns nil when the server is closed. The caller holds mu.
func (s *Server) next() *request {
	for s.ctx.Err() == nil {
		for _, r := range s.requests {
			if r.Status == queued && !time.Now().Before(r.notYet) {
				r.Status = pinning // on disk it stays queued: a restart begins anew
				return r
			}
		}
		s.changed.Wait()
	}
	return nil
}

// try fetches the DAG of a request and pins it. The caller holds mu, which is free
// while it is fetched. What was erased meanwhile is fetched again.
func (s *Server) try(ctx context.Context, r *request) {
	defer s.repo.Blocks.Hold().Release()
	s.mu.Unlock()
	defer s.mu.Lock()
	for done := false; !done; {
		keep, err := s.repo.BeginKeeping(ctx)
		if err == nil {
			err = s.fetch(ctx, r)
		}
		if err == nil {
			done, err = keep(ctx, func() error { s.finish(ctx, r, nil); return nil })
		}
		if err != nil {
			s.finish(ctx, r, err)
			done = true
		}
	}
}

// finish records how a try to fetch the DAG of a request ended, and pins it if err is nil.
func (s *Server) finish(ctx context.Context, r *request, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, gone := s.find(r.ID); gone != nil {
		return // deleted meanwhile; what came is garbage
	}
	if s.ctx.Err() != nil {
		r.Status = queued
		return
	}
	if err == nil || errors.Is(err, dag.ErrUnsupported) || r.tries == len(s.options.Pauses) {
		if err = s.settle(ctx, r, err); err != nil {
			// That the repository cannot be written is not the request's fault.
			s.later(r, storePause, err)
		}
		return
	}
	r.tries++
	s.later(r, s.options.Pauses[r.tries-1], err)
}

// later puts a request back into the queue. The caller holds mu.
func (s *Server) later(r *request, pause time.Duration, err error) {
	r.Status, r.Details, r.notYet = queued, cut("to be tried again: "+err.Error()), time.Now().Add(pause)
	r.retry = time.AfterFunc(pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
}

// fetch brings the DAG from the request's origins and the server's peers.
func (s *Server) fetch(ctx context.Context, r *request) error {
	var sources []*node.Remote
	defer func() {
		for _, src := range sources {
			src.Close() // what was fetched is checked; nothing depends on it
		}
	}()
	var errs []error
	for _, address := range append(r.Pin.peers(), s.options.Peers...) {
		src, err := s.repo.Dial(address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sources = append(sources, src)
	}
	if err := s.repo.Fetch(ctx, sources, r.cid, nil); err != nil {
		return errors.Join(append(errs, err)...)
	}
	return nil
}
