package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// dialTimeout bounds how long a source may take to answer at all.
	dialTimeout = 10 * time.Second
	// stallTimeout bounds how long a source may be silent in the middle.
	stallTimeout = 30 * time.Second
	// minRate is how many bytes a source must send in stallTimeout: one that
	// sends a byte now and then is as good as silent.
	minRate = 32 << 10
)

// ErrUnreachable: a source cannot be reached, has not what was asked, or fell silent.
var ErrUnreachable = errors.New("source cannot be reached")

// Remote is somebody else's gateway, over HTTP or over libp2p; a libp2p peer that has
// none is asked by bitswap in a fetch. Nothing that it says is believed: callers check
// every byte. Safe for concurrent use.
type Remote struct {
	// Name is how the caller wrote the source.
	Name   string
	base   string // URL without a trailing slash; over libp2p its host is the peer
	client *http.Client
	peer   *remotePeer // over libp2p
	// said is the peer id in the last answer, over HTTP; nil if none is looked for.
	said *atomic.Pointer[peer.ID]
	// patience is how long it may be silent or slow, and begin how long it may take until
	// it begins to answer; stallTimeout, and as long as it takes to dial beside, if 0.
	patience, begin time.Duration
	close           func() error
}

func (r *Remote) stall() time.Duration { return cmp.Or(r.patience, stallTimeout) }

// answer bounds how long it may take until it begins to answer.
func (r *Remote) answer() time.Duration { return cmp.Or(r.begin, dialTimeout+stallTimeout) }

// Dial prepares a source: the URL of a gateway, or a multiaddr that ends in
// /p2p/<peer id>, to which this repository's peer id and swarm key are shown. The
// connection is made by the first request. What is dialled while a [Network] of the
// repository is open is of no use after that.
func (r *Repo) Dial(source string) (*Remote, error) {
	if strings.HasPrefix(source, "/") {
		return r.dialPeer(source)
	}
	u, err := url.Parse(source)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("source %q is neither a URL nor a multiaddr with /p2p/", source)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	t.ResponseHeaderTimeout = stallTimeout
	t.MaxIdleConnsPerHost = sourceTasks
	t.MaxResponseHeaderBytes = 64 << 10
	return &Remote{
		Name: source, base: strings.TrimSuffix(source, "/"), said: new(atomic.Pointer[peer.ID]),
		client: &http.Client{Transport: t, CheckRedirect: sameHost},
		close:  func() error { t.CloseIdleConnections(); return nil },
	}, nil
}

// maxRedirects is how often a gateway may say that it has something elsewhere.
const maxRedirects = 5

// sameHost follows a gateway to other paths of its own only: elsewhere it has no word in
// whom this node asks, and what is there is not what it has.
func sameHost(req *http.Request, via []*http.Request) error {
	if from := via[0].URL; len(via) > maxRedirects || req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

func (r *Repo) dialPeer(source string) (*Remote, error) {
	info, err := peer.AddrInfoFromString(source)
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", source, err)
	}
	return r.dialInfo(source, *info)
}

// dialInfo dials a peer; source is how the caller wrote it. While the node serves, the
// host that does speaks to the peer: with two hosts of one peer id, what a peer sends by
// bitswap could come to the wrong one.
func (r *Repo) dialInfo(source string, info peer.AddrInfo) (*Remote, error) {
	swarmKey, err := r.SwarmKey()
	if err != nil {
		return nil, err
	}
	p := &remotePeer{info: info, blocks: r.Blocks, swarmKey: swarmKey}
	if n := r.serving.Load(); n != nil {
		p.host, p.client = n.host, n.bitswap.Client
		return p.remote(source), nil
	}
	key, err := r.identity()
	if err != nil {
		return nil, err
	}
	if p.host, err = newHost(key, nil, swarmKey); err != nil {
		return nil, fmt.Errorf("source %q: %w", source, err)
	}
	p.owned = true
	return p.remote(source), nil
}

// remote is the peer as a source of that name.
func (p *remotePeer) remote(name string) *Remote {
	// libp2p's own client of HTTP over streams waits for ever for a peer that says
	// nothing; net/http ends a request with its context.
	t := &http.Transport{
		DialContext:           p.dialGateway,
		ResponseHeaderTimeout: stallTimeout,
		MaxIdleConnsPerHost:   sourceTasks,
	}
	return &Remote{
		Name: name, base: "http://" + p.info.ID.String(), client: &http.Client{Transport: t}, peer: p,
		close: func() error { t.CloseIdleConnections(); return p.close() },
	}
}

// Answered reports whether an error of a Remote says that it was reached and has not
// what it was asked for: it may have other things.
func Answered(err error) bool { return errors.Is(err, dag.ErrNotFound) || isNoGateway(err) }

// Close ends the connections.
func (r *Remote) Close() error { return r.close() }

// get asks for a path and returns the body of a 200. Reading it fails when the
// source is silent for stallTimeout.
func (r *Remote) get(ctx context.Context, path, accept string) (io.ReadCloser, error) {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	watch := time.AfterFunc(r.answer(), func() {
		cancel(fmt.Errorf("%w: %s: silent or too slow for %s", ErrUnreachable, r.Name, r.stall()))
	})
	fail := func(err error) (io.ReadCloser, error) {
		watch.Stop()
		defer cancel(nil)
		if caller.Err() != nil {
			return nil, context.Cause(caller)
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, r.Name, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return fail(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return fail(err)
	}
	r.hear(resp.Header)
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err := fmt.Errorf("%s answers %q for %s", r.Name, resp.Status, path)
		// Object stores say 403 of what they do not have.
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusForbidden && r.peer == nil {
			err = fmt.Errorf("%w: %w", dag.ErrNotFound, err)
		}
		return fail(err)
	}
	watch.Reset(r.stall())
	return &body{ReadCloser: resp.Body, name: r.Name, stall: r.stall(), watch: watch, cancel: cancel, ctx: ctx}, nil
}

// body is a response body with a watch on the source's silence.
type body struct {
	io.ReadCloser
	name   string
	stall  time.Duration
	watch  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
	some   int // bytes since the watch was set
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.some += n; b.some >= minRate {
		b.some = 0
		b.watch.Reset(b.stall)
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	if cause := context.Cause(b.ctx); cause != nil {
		return n, cause
	}
	if err != io.ErrUnexpectedEOF { // which readers of CARs know
		err = fmt.Errorf("%w: %s: %w", ErrUnreachable, b.name, err)
	}
	return n, err
}

func (b *body) Close() error {
	b.watch.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

const carType = "application/vnd.ipld.car; version=1; order=dfs; dups=n"

// CAR asks for the whole DAG at c as a CAR (trustless gateway specification).
func (r *Remote) CAR(ctx context.Context, c cid.Cid) (io.ReadCloser, error) {
	return r.get(ctx, "/ipfs/"+c.String()+"?format=car", carType)
}

// car asks for a node as a CAR, or for all of the DAG at it.
func (r *Remote) car(ctx context.Context, c cid.Cid, whole bool) (io.ReadCloser, error) {
	if whole {
		return r.CAR(ctx, c)
	}
	return r.get(ctx, "/ipfs/"+c.String()+"?format=car&dag-scope=block", carType)
}

// Block asks for one IPFS block and checks it.
func (r *Remote) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	rc, err := r.get(ctx, "/ipfs/"+c.String()+"?format=raw", "application/vnd.ipld.raw")
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, dag.MaxBlockSize+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, r.Name, err)
	}
	return data, dag.Block{CID: c, Data: data}.Check()
}

// Log returns the live tlog-tiles prefix that the remote has of a log.
func (r *Remote) Log(origin string) *LogPrefix {
	sum := sha256.Sum256([]byte(origin))
	return &LogPrefix{r, "/tlog/" + hex.EncodeToString(sum[:]) + "/"}
}

// Prefix returns the URL itself as a tlog-tiles prefix, and false for a libp2p peer, which
// is none.
func (r *Remote) Prefix() (*LogPrefix, bool) { return &LogPrefix{r, "/"}, r.peer == nil }

// LogPrefix reads the files of a tlog-tiles prefix.
type LogPrefix struct {
	r      *Remote
	prefix string
}

// maxLogFile is the largest file of a log's tlog-tiles prefix, and some room: as
// anchor.MaxEndpointSize.
const maxLogFile = 1<<20 + 512

// ReadEndpoint returns one file of the prefix.
func (p *LogPrefix) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	rc, err := p.r.get(ctx, p.prefix+path, "")
	if isNoGateway(err) {
		err = fmt.Errorf("%w: %w", dag.ErrNotFound, err) // it has IPFS blocks at most
	}
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, maxLogFile+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, p.r.Name, err)
	}
	if len(data) > maxLogFile {
		return nil, fmt.Errorf("%w: %s: %s is longer than a log's file can be", ErrUnreachable, p.r.Name, path)
	}
	return data, nil
}
