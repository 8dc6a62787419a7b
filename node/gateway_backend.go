package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gabriel-vasile/mimetype"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// backend is boxo's, with names from the records that the repository holds, whole DAGs
// without decoding (see GetCAR), and statuses where boxo has a wrong one.
type backend struct {
	gateway.IPFSBackend
	blocks blockstore.Blockstore
	dag    ipld.DAGService // over blocks
	repo   *Repo
}

var errNoUnixFS = errors.New("only UnixFS can be had as a tar")

// ResolveMutable answers /ipns/.
func (b backend) ResolveMutable(_ context.Context, p path.Path) (path.ImmutablePath, time.Duration, time.Time, error) {
	if !p.Mutable() {
		fixed, err := path.NewImmutablePath(p)
		return fixed, 0, time.Time{}, err
	}
	fixed, ttl, err := b.repo.resolveName(p)
	return fixed, ttl, time.Time{}, nameStatus(err)
}

// GetIPNSRecord answers ?format=ipns-record.
func (b backend) GetIPNSRecord(_ context.Context, c cid.Cid) ([]byte, error) {
	n, err := b.repo.Name(c.String())
	return n.Record, nameStatus(err)
}

// GetDNSLinkRecord is never asked for: DNSLink is off.
func (b backend) GetDNSLinkRecord(context.Context, string) (path.Path, error) {
	return nil, gateway.NewErrorStatusCode(errors.ErrUnsupported, http.StatusNotImplemented)
}

// IsCached answers only-if-cached.
func (b backend) IsCached(ctx context.Context, p path.Path) bool {
	fixed, _, _, err := b.ResolveMutable(ctx, p)
	return err == nil && b.IPFSBackend.IsCached(ctx, fixed)
}

// Get answers for a document or a directory. Of a document of which a range is wanted,
// boxo would go to the range's begin before it knows whether the range counts (If-Range),
// and then give other bytes than it says, or fail at a suffix longer than the document.
func (b backend) Get(ctx context.Context, p path.ImmutablePath, ranges ...gateway.ByteRange) (gateway.ContentPathMetadata, *gateway.GetResponse, error) {
	if md, listing, ok := b.list(ctx, p); ok {
		return md, listing, nil
	}
	if err := b.goneDocument(ctx, p); err != nil {
		return gateway.ContentPathMetadata{}, nil, err
	}
	if len(ranges) == 0 {
		return b.IPFSBackend.Get(ctx, p)
	}
	md, found, err := b.GetAll(ctx, p)
	file, ok := found.(document)
	if _, link := found.(*files.Symlink); err != nil || link || !ok {
		if found != nil {
			found.Close() // nothing was read of it
		}
		return b.IPFSBackend.Get(ctx, p) // which of all else gives the whole
	}
	size, err := file.Size()
	if err != nil {
		return md, nil, errors.Join(err, file.Close())
	}
	// A range has the type that the whole has, which its begin shows, if it is here.
	md.ContentType = "application/octet-stream"
	if kind, err := mimetype.DetectReader(file); err == nil {
		md.ContentType = kind.String()
	}
	return md, gateway.NewGetResponseFromReader(&rangeReader{document: file, req: requestOf(ctx)}, size), nil
}

// document is a file of UnixFS.
type document interface {
	files.File
	io.Seeker
}

// rangeReader reads from where the header of the answer says.
type rangeReader struct {
	document
	req   *gatewayRequest
	begun bool
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		if _, err := r.Seek(r.req.from, io.SeekStart); err != nil {
			return 0, err
		}
	}
	return r.document.Read(p)
}

// GetAll answers ?format=tar.
func (b backend) GetAll(ctx context.Context, p path.ImmutablePath) (gateway.ContentPathMetadata, files.Node, error) {
	md, err := b.ResolvePath(ctx, p)
	if err != nil {
		return md, nil, err
	}
	switch last := md.LastSegment.RootCid(); last.Prefix().Codec {
	case cid.DagProtobuf, cid.Raw:
		md, found, err := b.IPFSBackend.GetAll(ctx, p)
		if err == nil && requestOf(ctx).head {
			// It is there, and that is all that is asked.
			return md, files.NewMapDirectory(nil), found.Close()
		}
		return md, found, err
	default:
		return md, nil, gateway.NewErrorStatusCode(fmt.Errorf("%w: %s", errNoUnixFS, last), http.StatusBadRequest)
	}
}

// nameStatus makes a name that is not held 404, as the specification demands of a
// gateway that looks nowhere else.
func nameStatus(err error) error {
	if errors.Is(err, ErrNoName) {
		return gateway.NewErrorStatusCode(err, http.StatusNotFound)
	}
	return err
}

// quoteEtags puts the Etag of an IPNS record in quotes, without which it is none
// (RFC 9110, section 8.8.3), and compares it.
func quoteEtags(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&etagQuoter{ResponseWriter: w, known: r.Header.Get("If-None-Match")}, r)
	})
}

type etagQuoter struct {
	http.ResponseWriter
	known       string // the Etags that the client has
	done, empty bool
}

func (w *etagQuoter) WriteHeader(code int) {
	etag := w.Header().Get("Etag")
	if !w.done && etag != "" && !strings.Contains(etag, `"`) {
		etag = `"` + etag + `"`
		w.Header().Set("Etag", etag)
		if code == http.StatusOK && (w.known == "*" || strings.Contains(w.known, etag)) {
			code, w.empty = http.StatusNotModified, true
			w.Header().Del("Content-Type")
			w.Header().Del("Content-Disposition")
		}
	}
	w.done = true
	w.ResponseWriter.WriteHeader(code)
}

func (w *etagQuoter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	if w.empty {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w *etagQuoter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
