package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs/go-cid"
)

// Health is how many independent places serve a save point, in one word.
type Health string

const (
	// Resilient: two or more places besides the bank serve it.
	Resilient Health = "Resilient"
	// Healthy: the bank and one other place serve it.
	Healthy Health = "Healthy"
	// Fragile: one place serves it, the bank or another.
	Fragile Health = "Fragile"
	// Broken: nobody serves it.
	Broken Health = "Broken"
)

// healthOf is the word for it.
func healthOf(own bool, others int) Health {
	switch {
	case others >= 2:
		return Resilient
	case own && others == 1:
		return Healthy
	case own || others == 1:
		return Fragile
	}
	return Broken
}

// ErrFragile: a save point is served by one place, or by none.
var ErrFragile = errors.New("too few places serve a save point")

// OwnPlace is the name of the bank itself among the places of a save point.
const OwnPlace = "own"

const (
	// DefaultHealthBlocks is the default of [HealthOptions].
	DefaultHealthBlocks = 8
	// DefaultHealthTimeout is the default of [HealthOptions].
	DefaultHealthTimeout = 15 * time.Second
)

// HealthOptions says whom to ask for what.
type HealthOptions struct {
	// Blocks is how many IPFS blocks each place is asked for: the manifest, and
	// others of the save point chosen at random; where the bank has not all of it, on
	// random ways down from the manifest. DefaultHealthBlocks if 0.
	Blocks int
	// Timeout bounds how long a place may take for one save point;
	// DefaultHealthTimeout if 0. One that took longer is not asked for others.
	Timeout time.Duration
	// Sources are asked besides the targets of config.toml, its peers, and the
	// mirrors that trust policies name: URLs of gateways, and multiaddrs that end
	// in /p2p/<peer id>.
	Sources []string
}

// PlaceHealth is what a place did when it was asked for a save point.
type PlaceHealth struct {
	Name   string
	Serves bool
	Reason string // why it does not
}

// Checked is the health of a save point. The bank itself is the first of the places.
type Checked struct {
	Savepoint Savepoint // its manifest is nil if the bank cannot read it
	Health    Health
	Places    []PlaceHealth
}

// Health asks every place that may have them for random IPFS blocks of save points,
// all places at the same time, and checks what comes. Places that turn out to be the
// same, or the bank itself, count once (see [replication.Identity]). report is called for
// each save point.
func (b *Bank) Health(ctx context.Context, list []Savepoint, o HealthOptions, report func(Checked) error) error {
	if o.Blocks == 0 {
		o.Blocks = DefaultHealthBlocks
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultHealthTimeout
	}
	self, err := b.repo.PeerID()
	if err != nil {
		return err
	}
	asking := &asking{b: b, o: o, self: self, places: map[string]*asked{}, down: map[string]error{}}
	defer asking.close()
	for _, s := range list {
		c, err := asking.check(ctx, s)
		if err != nil {
			return err
		}
		if err := report(c); err != nil {
			return err
		}
	}
	return nil
}

// asking keeps the connections to places while several save points are asked for.
type asking struct {
	b    *Bank
	o    HealthOptions
	self string // the bank's own peer id

	places map[string]*asked // by ID
	down   map[string]error  // targets that could not say whom to ask, by name
}

// asked is a place and why it is not asked any more, if it is not.
type asked struct {
	replication.Place
	who  replication.Identity
	down error
}

func (a *asking) close() {
	for _, p := range a.places {
		p.Close() // nothing was written through it
	}
}

func (a *asking) check(ctx context.Context, s Savepoint) (Checked, error) {
	item := replication.Item{Root: s.CID}
	if full, err := a.b.withManifest(ctx, s); err == nil {
		s, item = full, sought(full)
	}
	sample, ownErr := sampleDAG(ctx, a.b.repo.Blocks, s.CID, a.o.Blocks, a.gone(ctx, s.Origin))
	if ownErr != nil {
		sample = nil // the bank does not know what else there is to ask for
	} else {
		ownErr = a.b.serves(ctx, s.CID, sample)
	}
	places, others := a.find(ctx, item)
	answers := make([]answer, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() { answers[i] = a.ask(ctx, p, item, sample, a.gone(ctx, s.Origin)) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return Checked{}, context.Cause(ctx)
	}
	c := Checked{Savepoint: s, Places: []PlaceHealth{placeHealth(OwnPlace, ownErr)}}
	serving := 0
	for _, p := range once(a.self, answers) {
		c.Places = append(c.Places, placeHealth(p.name, p.err))
		if p.err == nil {
			serving++
		}
	}
	c.Places = append(c.Places, others...)
	c.Health = healthOf(ownErr == nil, serving)
	return c, nil
}

// answer is how a place answered, and who it turned out to be.
type answer struct {
	name string
	who  replication.Identity
	err  error
}

// once leaves out the bank itself, of the peer id self, and all but one of the answers of
// one place: one that it serves, if there is one. The order stays.
func once(self string, answers []answer) []answer {
	var groups [][]answer
	for _, a := range answers {
		if a.who.Peer == self {
			continue
		}
		// It may show that several before it are one.
		joined := []answer{a}
		at := len(groups)
		for i := len(groups) - 1; i >= 0; i-- {
			if slices.ContainsFunc(groups[i], func(b answer) bool { return a.who.Same(b.who) }) {
				joined = append(slices.Clone(groups[i]), joined...)
				groups = slices.Delete(groups, i, i+1)
				at = i
			}
		}
		groups = slices.Insert(groups, at, joined)
	}
	var out []answer
	for _, g := range groups {
		i := max(0, slices.IndexFunc(g, func(a answer) bool { return a.err == nil }))
		out = append(out, g[i])
	}
	return out
}

func placeHealth(name string, err error) PlaceHealth {
	return PlaceHealth{Name: name, Serves: err == nil, Reason: replication.Reason(err)}
}

// serves reports whether the bank has IPFS blocks of a save point, and keeps it.
func (b *Bank) serves(ctx context.Context, root cid.Cid, sample []cid.Cid) error {
	for _, c := range sample {
		if _, err := b.repo.Blocks.Get(ctx, c); err != nil {
			return err
		}
	}
	pinned, err := b.repo.Pinned(root)
	if err == nil && !pinned {
		err = errors.New("it is not pinned")
	}
	return err
}

// find returns the places to ask for an item, each once, and the targets that do not
// say whom to ask.
func (a *asking) find(ctx context.Context, item replication.Item) (places []*asked, others []PlaceHealth) {
	targets := a.b.Replication().Targets()
	found := make([][]replication.Place, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		if errs[i] = a.down[t.Name()]; errs[i] != nil {
			continue
		}
		wg.Go(func() {
			limited, cancel := a.limit(ctx)
			defer cancel()
			found[i], errs[i] = t.Places(limited, item)
		})
	}
	wg.Wait()
	seen := map[string]bool{"/p2p/" + a.self: true}
	add := func(list []replication.Place) {
		for _, p := range list {
			if !seen[p.ID()] {
				seen[p.ID()] = true
				places = append(places, a.place(p))
			}
		}
	}
	for i, t := range targets {
		if errs[i] != nil {
			if replication.IsDown(errs[i]) {
				a.down[t.Name()] = errs[i]
			}
			others = append(others, placeHealth(t.Name(), errs[i]))
		}
		add(found[i])
	}
	for _, s := range a.sources() {
		add(replication.Places(a.b.repo, s, []string{s}))
	}
	return places, others
}

// sources are the places beside the targets.
func (a *asking) sources() []string {
	out := append(a.o.Sources[:len(a.o.Sources):len(a.o.Sources)], a.b.repo.Config.Peers...)
	for _, p := range a.b.Policies() {
		if p.Origin != a.b.Origin() {
			out = append(out, p.Mirrors...)
		}
	}
	return out
}

// place keeps a place for the next save point, or returns the one that was kept.
func (a *asking) place(p replication.Place) *asked {
	kept, ok := a.places[p.ID()]
	if !ok {
		kept = &asked{Place: p}
		a.places[p.ID()] = kept
	}
	return kept
}

// gone reports of IPFS blocks of a log's save points whether they need not be anywhere: that
// log erased them, and they are not here either.
func (a *asking) gone(ctx context.Context, origin string) func(cid.Cid) bool {
	return func(c cid.Cid) bool {
		if !a.b.erasures.goneFrom(ctx, origin, c) {
			return false
		}
		here, err := a.b.repo.Blocks.Has(ctx, c)
		return err == nil && !here
	}
}

func (a *asking) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.o.Timeout, fmt.Errorf("%w: no answer within %s", node.ErrUnreachable, a.o.Timeout))
}

// ask asks one place, for a sample, or for what it shows itself to have if there is none, but not for what
// is gone. What was silent once is not waited for again.
func (a *asking) ask(ctx context.Context, p *asked, item replication.Item, sample []cid.Cid, gone func(cid.Cid) bool) answer {
	if p.down != nil {
		return answer{p.Name(), p.who, p.down}
	}
	limited, cancel := a.limit(ctx)
	defer cancel()
	var err error
	if sample == nil {
		err = probe(limited, p, item, a.o.Blocks, gone)
	} else {
		err = replication.Serves(limited, p, item, sample)
	}
	if replication.IsDown(err) {
		p.down = err
	}
	named, cancel := a.limit(ctx)
	defer cancel()
	p.who = p.Identity(named)
	return answer{p.Name(), p.who, err}
}
