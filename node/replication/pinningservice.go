package replication

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/boxo/pinning/remote/client/openapi"
	"github.com/ipfs/go-cid"
)

const (
	// serviceTimeout bounds a request to a pinning service, its answer included.
	serviceTimeout = 30 * time.Second
	// maxServiceAnswer bounds the answer, in bytes.
	maxServiceAnswer = 1 << 20
	// maxOrigins is how many origins the specification allows.
	maxOrigins = 20
	// maxDelegates is how many addresses of a service's peers are used. The
	// specification allows 20; a cluster has more.
	maxDelegates = 200
	// pinWait is how long a push waits for the service to have fetched a DAG. After
	// that others get their turn.
	pinWait = 2 * time.Minute
	// firstPoll and lastPoll are how often it is asked meanwhile: less and less.
	firstPoll = 100 * time.Millisecond
	lastPoll  = 5 * time.Second
)

// pinningService is an endpoint of the IPFS Pinning Service API (version 1), or that
// of another ipfs-savepoint.
type pinningService struct {
	repo      *node.Repo
	name, url string
	// gateway is that of another ipfs-savepoint.
	gateway   string
	ask       []string
	token     tokenFile
	hosts     *hosts
	transport http.RoundTripper
	wait      time.Duration
	guests    guests
}

func newPinningService(repo *node.Repo, r node.Replica, h *hosts, token tokenFile) *pinningService {
	s := &pinningService{
		repo: repo, name: r.Name, url: placeURL(r.Endpoint), ask: r.Ask,
		token: token, hosts: h, transport: bounded{newTransport()}, wait: pinWait,
	}
	if r.Kind == node.ReplicaSavepoint {
		s.gateway = s.url
		s.url += "/pinning"
	}
	return s
}

// bounded bounds answers, of which the client keeps all.
type bounded struct{ http.RoundTripper }

func (t bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxServiceAnswer)
	}
	return resp, err
}

func (s *pinningService) Name() string { return s.name }

// client returns the API with the token of now.
func (s *pinningService) client() (*openapi.PinsApiService, error) {
	token, err := s.token.read()
	if err != nil {
		return nil, err
	}
	config := openapi.NewConfiguration()
	config.UserAgent = "ipfs-savepoint"
	config.Servers = openapi.ServerConfigurations{{URL: s.url}}
	config.HTTPClient = &http.Client{Transport: s.transport, Timeout: serviceTimeout, CheckRedirect: noRedirect}
	if token != "" {
		config.AddDefaultHeader("Authorization", "Bearer "+token)
	}
	return openapi.NewAPIClient(config).PinsApi, nil
}

// Push has the service fetch an item from this node and pin it. Requests for it that
// are there already are used. The service's peers may read from this node until the
// item is pinned, or is not to be.
func (s *pinningService) Push(ctx context.Context, item Item) error {
	api, err := s.client()
	if err != nil {
		return err
	}
	host := s.hosts.get()
	leave := s.guests.enter(host, item.Root)
	err = s.push(ctx, api, host, item)
	leave(errors.Is(err, ErrPending))
	return err
}

func (s *pinningService) push(ctx context.Context, api *openapi.PinsApiService, host Host, item Item) error {
	all, err := s.requests(ctx, api, item.Root)
	if err != nil {
		return err
	}
	best, failed := sortRequests(all)
	if best != nil && best.Status == openapi.PINNED {
		return nil
	}
	if err := refuseWithout(item); err != nil {
		return err
	}
	if best == nil {
		if best, err = s.add(ctx, api, item, failed); err != nil {
			return err
		}
	}
	connectErr := errors.New("this node does not listen (\"serve\" does)")
	if host != nil {
		s.guests.admit(host, item.Root, delegates(*best))
		connectErr = host.Connect(ctx, delegates(*best))
	}
	if err := s.await(ctx, api, best.Requestid, item.Root); err != nil {
		if connectErr != nil {
			err = fmt.Errorf("%w (connecting to the service's peers: %w)", err, connectErr)
		}
		return err
	}
	return nil
}

// requests returns the requests for a DAG, of any status.
func (s *pinningService) requests(ctx context.Context, api *openapi.PinsApiService, root cid.Cid) ([]openapi.PinStatus, error) {
	any := []openapi.Status{openapi.QUEUED, openapi.PINNING, openapi.PINNED, openapi.FAILED}
	found, resp, err := api.PinsGet(ctx).Cid([]string{root.String()}).Status(any).Limit(100).Execute()
	if err != nil {
		return nil, serviceError(ctx, resp, err)
	}
	var out []openapi.PinStatus
	for _, r := range found.Results {
		if isOf(r, root) {
			out = append(out, r)
		}
	}
	return out, nil
}

// isOf reports whether a request is for a DAG: a service may not know the filter, or
// confuse things.
func isOf(r openapi.PinStatus, root cid.Cid) bool {
	c, err := cid.Decode(r.Pin.Cid)
	return err == nil && c == root
}

// sortRequests returns the request that is the furthest, unless it failed, and those
// that failed.
func sortRequests(all []openapi.PinStatus) (best *openapi.PinStatus, failed []openapi.PinStatus) {
	rank := map[openapi.Status]int{openapi.QUEUED: 1, openapi.PINNING: 2, openapi.PINNED: 3}
	for _, r := range all {
		switch {
		case rank[r.Status] == 0:
			failed = append(failed, r)
		case best == nil || rank[r.Status] > rank[best.Status]:
			best = &r
		}
	}
	return best, failed
}

// delegates returns the multiaddrs among those that a service names as its peers'.
func delegates(r openapi.PinStatus) []string {
	named := r.Delegates[:min(len(r.Delegates), maxDelegates)]
	return slices.DeleteFunc(slices.Clone(named), func(a string) bool { return !strings.HasPrefix(a, "/") })
}

// add makes a request, and then removes those that failed before. A service whose
// requests have the CID for an id has only the one.
func (s *pinningService) add(ctx context.Context, api *openapi.PinsApiService, item Item, failed []openapi.PinStatus) (*openapi.PinStatus, error) {
	pin := openapi.NewPin(item.Root.String())
	pin.SetName(item.Name)
	if h := s.hosts.get(); h != nil {
		origins := h.Addresses()
		pin.SetOrigins(origins[:min(len(origins), maxOrigins)])
	}
	made, resp, err := api.PinsPost(ctx).Pin(*pin).Execute()
	if err != nil {
		return nil, serviceError(ctx, resp, err)
	}
	if !isOf(made, item.Root) {
		return nil, fmt.Errorf("%w: it took a request for %s as one for %q", ErrRefused, item.Root, made.Pin.Cid)
	}
	for _, old := range failed {
		if old.Requestid != made.Requestid {
			// It is of no use to anybody. If it stays, the next time removes it.
			api.PinsRequestidDelete(ctx, old.Requestid).Execute()
		}
	}
	return &made, nil
}

// await asks for a request until it is pinned. What was said when it was made does not
// count.
func (s *pinningService) await(ctx context.Context, api *openapi.PinsApiService, id string, root cid.Cid) error {
	end := time.After(s.wait)
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		r, resp, err := api.PinsRequestidGet(ctx, id).Execute()
		if err != nil {
			return serviceError(ctx, resp, err)
		}
		if !isOf(r, root) {
			return fmt.Errorf("%w: request %q is for %q now", ErrRefused, id, r.Pin.Cid)
		}
		switch r.Status {
		case openapi.PINNED:
			return nil
		case openapi.FAILED:
			return fmt.Errorf("%w: pinning failed: %s", ErrRefused, r.GetInfo()["status_details"])
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end:
			return fmt.Errorf("%w: the service says %q", ErrPending, r.Status)
		case <-time.After(pause):
		}
	}
}

// serviceError says what went wrong with a request.
func serviceError(ctx context.Context, resp *http.Response, err error) error {
	if resp == nil {
		return unreachable(ctx, err)
	}
	var answer openapi.GenericOpenAPIError
	if !errors.As(err, &answer) {
		return unreachable(ctx, err) // it was cut, or too long
	}
	if resp.StatusCode < 300 {
		return fmt.Errorf("%w: its answer is not one of the Pinning Service API: %w", ErrRefused, err)
	}
	text := ""
	if f, ok := answer.Model().(openapi.Failure); ok {
		text = f.Error.GetReason()
		if details := f.Error.GetDetails(); details != "" {
			text += ": " + details
		}
	}
	return asAnswer(resp.StatusCode, text)
}

// Places are those that the configuration names; else the peers that the service says
// it has given the DAG to.
func (s *pinningService) Places(ctx context.Context, item Item) ([]Place, error) {
	if len(s.ask) > 0 {
		return Places(s.repo, s.name, s.ask), nil
	}
	api, err := s.client()
	if err != nil {
		return nil, err
	}
	all, err := s.requests(ctx, api, item.Root)
	if err != nil {
		return nil, err
	}
	best, _ := sortRequests(all)
	if best == nil {
		return nil, fmt.Errorf("%w: it has no request for %s", ErrRefused, item.Root)
	}
	places := Places(s.repo, s.name, delegates(*best))
	if len(places) == 0 && s.gateway != "" {
		places = Places(s.repo, s.name, []string{s.gateway})
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("%w: it names no peer to ask; \"ask\" in config.toml does", ErrRefused)
	}
	return places, nil
}
