package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// Local is a source that asks a repository which this process has open. Nothing
// of it can be reached from outside.
func Local(name string, r *Repo, logs LogRoot) (*Remote, error) {
	handler, err := r.Gateway(logs)
	if err != nil {
		return nil, err
	}
	return LocalHandler(name, handler, func() error { return nil }), nil
}

// LocalHandler is a source that asks a handler in this process. It ends with done.
func LocalHandler(name string, handler http.Handler, done func() error) *Remote {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: dialTimeout}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t := &http.Transport{DialContext: l.dial, ResponseHeaderTimeout: stallTimeout}
	return &Remote{
		Name: name, base: "http://localhost", client: &http.Client{Transport: t},
		close: func() error {
			t.CloseIdleConnections()
			err := srv.Close()
			<-served // always http.ErrServerClosed
			return errors.Join(err, done())
		},
	}
}

// pipes is a listener whose connections are pipes within the process.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
