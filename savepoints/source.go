package savepoints

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

const (
	namePath   = "/ipns/"
	rootPath   = "/ipfs/"
	fileScheme = "file://"
)

// source is a place to ask, and the bank behind it if that is ours to close.
type source struct {
	*node.Remote
	bank *Bank
	// logless: it was reached and has no such log, or no gateway. It may have IPFS blocks, as any
	// IPFS node may.
	logless bool
	// err is why it showed no head of the log when it was last asked.
	err error
	// bare: it is a tlog-tiles prefix, and has no IPFS blocks.
	bare bool
	// names are the valid records of the log's names that it showed last.
	names map[string]node.Name
}

// logless returns those that may have IPFS blocks and no log.
func logless(sources []*source) []*source {
	return slices.DeleteFunc(slices.Clone(sources), func(s *source) bool { return !s.logless })
}

// remotes returns what is to be asked for IPFS blocks.
func remotes(sources []*source) []*node.Remote {
	var out []*node.Remote
	for _, s := range sources {
		if !s.bare {
			out = append(out, s.Remote)
		}
	}
	return out
}

// isPlace reports whether a source is one to be asked over the network.
func isPlace(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.Contains(s, "/p2p/")
}

// isPointer reports whether a source is a name or a log root, for which others are asked.
func isPointer(s string) bool {
	return strings.HasPrefix(s, namePath) || strings.HasPrefix(s, rootPath)
}

// names returns the IPNS names of the log: the policy's, and those among the sources.
func (o FetchOptions) names() []string {
	out := names(o.Policy)
	for _, s := range o.Sources {
		if name, ok := strings.CutPrefix(s, namePath); ok {
			out = append(out, strings.TrimSuffix(name, "/"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// roots returns the log roots among the sources.
func (o FetchOptions) roots() ([]cid.Cid, error) {
	var out []cid.Cid
	for _, s := range o.Sources {
		root, ok := strings.CutPrefix(s, rootPath)
		if !ok {
			continue
		}
		c, err := cid.Decode(strings.TrimSuffix(root, "/"))
		if err != nil || c.Prefix().Codec != cid.DagProtobuf {
			return nil, fmt.Errorf("%w: source %s is not /ipfs/ and the CID of a log root", ErrUsage, s)
		}
		out = append(out, c)
	}
	return out, nil
}

// gather sorts the sources, with those that the policy names, and prepares those that
// are not archives. It returns what it has prepared also with an error.
func (b *Bank) gather(ctx context.Context, o FetchOptions) (archives []string, sources []*source, err error) {
	archives, given, err := sortSources(o.Sources)
	if err != nil {
		return nil, nil, err
	}
	if roots, _ := o.roots(); len(roots) > 0 && len(archives) > 0 {
		return nil, nil, fmt.Errorf("%w: an archive has no log to compare with a log root", ErrUsage)
	}
	all := append(given, places(o.Policy)...)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == 0 && len(archives) == 0 {
		s, err := b.here(ctx, o)
		return nil, s, err
	}
	sources, err = b.dial(ctx, all, o)
	return archives, sources, err
}

// here is the repository itself as a source: a name or a log root can also be known here,
// with all that it stands for.
func (b *Bank) here(ctx context.Context, o FetchOptions) ([]*source, error) {
	roots, err := o.roots()
	if err != nil {
		return nil, err
	}
	known := slices.ContainsFunc(o.names(), func(name string) bool { _, err := b.repo.Name(name); return err == nil })
	for _, root := range roots {
		has, err := b.repo.Blocks.Has(ctx, root)
		if err != nil {
			return nil, err
		}
		known = known || has
	}
	switch {
	case known:
		r, err := node.Local(b.repo.Dir(), b.repo, nil)
		return []*source{{Remote: r}}, err
	case len(o.Sources) > 0:
		return nil, errNobody
	}
	return nil, fmt.Errorf("%w: no source to ask", ErrUsage)
}

var errNobody = fmt.Errorf("%w: a name or a log root needs somebody to ask for it: give the URL of a gateway as well", ErrUsage)

// CheckSources reports a source that cannot be one, without asking any: an ErrUsage.
func CheckSources(sources []string) error {
	_, _, err := sortSources(sources)
	return err
}

// sortSources tells archives from places, and leaves names and log roots out.
func sortSources(sources []string) (archives, places []string, err error) {
	if _, err := (FetchOptions{Sources: sources}).roots(); err != nil {
		return nil, nil, err
	}
	for _, s := range sources {
		switch {
		case isPointer(s):
		case strings.HasPrefix(s, fileScheme):
			u, err := url.Parse(s)
			if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) {
				return nil, nil, fmt.Errorf("%w: source %q is not file:// and an absolute path", ErrUsage, s)
			}
			archives, places, err = sortFile(u.Path, archives, places)
			if err != nil {
				return nil, nil, err
			}
		case strings.Contains(s, "://") || strings.Contains(s, "/p2p/"):
			places = append(places, s)
		default:
			if archives, places, err = sortFile(s, archives, places); err != nil {
				return nil, nil, err
			}
		}
	}
	return archives, places, nil
}

func sortFile(path string, archives, places []string) (_, _ []string, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: source: %w", ErrUsage, err)
	}
	switch {
	case err != nil:
		return nil, nil, err
	case st.IsDir():
		return archives, append(places, path), nil
	case !st.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%w: source %s: %w", ErrUsage, path, node.ErrNotFile)
	}
	return append(archives, path), places, nil
}

// dial prepares sources that are not archives. One of several that cannot be used is
// reported and left out.
func (b *Bank) dial(ctx context.Context, places []string, o FetchOptions) ([]*source, error) {
	var out []*source
	for _, place := range places {
		s, err := b.dialOne(ctx, place)
		if err != nil && len(places) == 1 {
			return out, err
		}
		if err != nil {
			o.report("source %s: %v", place, err)
			continue
		}
		out = append(out, s)
	}
	if len(out) == 0 && len(places) > 0 {
		return nil, fmt.Errorf("%w: none of the sources", node.ErrUnreachable)
	}
	return out, nil
}

func (b *Bank) dialOne(ctx context.Context, place string) (*source, error) {
	if strings.Contains(place, "://") || strings.Contains(place, "/p2p/") {
		r, err := b.repo.Dial(place)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		return &source{Remote: r}, nil
	}
	if isPrefix(place) {
		return dialPrefix(place)
	}
	bank, err := Open(ctx, place)
	if err != nil {
		return nil, err
	}
	r, err := node.Local(place, bank.repo, bank.LogRoot)
	if err != nil {
		return nil, errors.Join(err, bank.Close())
	}
	return &source{Remote: r, bank: bank}, nil
}

// isPrefix reports whether a folder is a tlog-tiles prefix.
func isPrefix(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, "checkpoint"))
	return err == nil && st.Mode().IsRegular()
}

// dialPrefix shows the files of a folder, and of no other, as a web server would.
func dialPrefix(dir string) (*source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &source{Remote: node.LocalHandler(dir, http.FileServerFS(regularFiles{root}), root.Close), bare: true}, nil
}

// regularFiles are the regular files of a folder. To open anything else could wait for
// ever, as a pipe does for who writes to it.
type regularFiles struct{ root *os.Root }

func (r regularFiles) Open(name string) (fs.File, error) {
	f, err := r.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := node.CheckFile(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}, f.Close())
	}
	return f, nil
}

func closeAll(sources []*source) {
	for _, s := range sources {
		s.Close() // nothing was written through it
		if s.bank != nil {
			s.bank.Close()
		}
	}
}

// remoteBlocks are the IPFS blocks of a source, each checked against its CID.
type remoteBlocks struct{ *node.Remote }

// Get asks for one IPFS block.
func (r remoteBlocks) Get(ctx context.Context, c cid.Cid) ([]byte, error) { return r.Block(ctx, c) }

// headAt returns the signed head in a log root. It is what the CID stands for, whoever
// gives it.
func (s *source) headAt(ctx context.Context, root cid.Cid) ([]byte, error) {
	return anchor.LocalFetcher(remoteBlocks{s.Remote}, root).ReadEndpoint(ctx, "checkpoint")
}
