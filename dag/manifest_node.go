package dag

import (
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// node returns the manifest as a node of the IPLD data model.
func (m *Manifest) node() (datamodel.Node, error) {
	return qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "version", qp.Int(int64(m.Version)))
		qp.MapEntry(ma, "profile", qp.String(m.Profile))
		qp.MapEntry(ma, "instance", qp.Bytes(m.Instance[:]))
		qp.MapEntry(ma, "policy", qp.Map(-1, m.Policy.assemble))
		qp.MapEntry(ma, "triggers", qp.List(-1, func(la datamodel.ListAssembler) {
			for _, t := range m.Triggers {
				qp.ListEntry(la, qp.Map(-1, t.assemble))
			}
		}))
		qp.MapEntry(ma, "sequence", qp.Int(int64(m.Sequence)))
		qp.MapEntry(ma, "epoch", qp.Int(int64(m.Epoch)))
		if m.Height != nil {
			qp.MapEntry(ma, "height", qp.Int(int64(*m.Height)))
		}
		qp.MapEntry(ma, "time", qp.String(m.Time.Format(TimeFormat)))
		if p := m.Parent; p != nil {
			qp.MapEntry(ma, "parent", qp.Map(-1, func(ma datamodel.MapAssembler) {
				qp.MapEntry(ma, "savepoint", qp.Bytes(p.Savepoint.Bytes()))
				qp.MapEntry(ma, "sequence", qp.Int(int64(p.Sequence)))
			}))
		}
		qp.MapEntry(ma, "state", link(m.State))
		qp.MapEntry(ma, "totals", qp.Map(-1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "documents", qp.Int(int64(m.Totals.Documents)))
			qp.MapEntry(ma, "bytes", qp.Int(int64(m.Totals.Bytes)))
		}))
		qp.MapEntry(ma, "consistency", qp.Map(-1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "method", qp.String(m.Consistency.Method))
			qp.MapEntry(ma, "consistent", qp.Bool(m.Consistency.Consistent))
		}))
		qp.MapEntry(ma, "provider", qp.Map(-1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "name", qp.String(m.Provider.Name))
			qp.MapEntry(ma, "plugins", texts(m.Provider.Plugins))
		}))
		m.assembleOptional(ma)
		qp.MapEntry(ma, "tool", qp.Map(-1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "name", qp.String(m.Tool.Name))
			qp.MapEntry(ma, "version", qp.String(m.Tool.Version))
		}))
		for _, f := range m.unknown {
			qp.MapEntry(ma, f.key, qp.Node(f.value))
		}
	})
}

func (m *Manifest) assembleOptional(ma datamodel.MapAssembler) {
	if m.Resources.Defined() {
		qp.MapEntry(ma, "resources", link(m.Resources))
	}
	if len(m.Partial) > 0 {
		qp.MapEntry(ma, "partial", texts(m.Partial))
	}
	if len(m.Secrets) > 0 {
		qp.MapEntry(ma, "secrets", texts(m.Secrets))
	}
	if e := m.Encryption; e != nil {
		qp.MapEntry(ma, "encryption", qp.Map(-1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "scheme", qp.String(e.Scheme))
			qp.MapEntry(ma, "keyId", qp.String(e.KeyID))
			qp.MapEntry(ma, "names", qp.Bool(e.Names))
		}))
	}
	if len(m.Labels) > 0 {
		qp.MapEntry(ma, "labels", qp.Map(-1, func(ma datamodel.MapAssembler) {
			for k, v := range m.Labels {
				qp.MapEntry(ma, k, qp.String(v))
			}
		}))
	}
}

func (p Policy) assemble(ma datamodel.MapAssembler) {
	qp.MapEntry(ma, "id", qp.String(p.ID))
	optional(ma, "name", p.Name)
	optional(ma, "version", p.Version)
	optional(ma, "topic", p.Topic)
	if p.Config.Defined() {
		qp.MapEntry(ma, "config", link(p.Config))
	}
}

func (t Trigger) assemble(ma datamodel.MapAssembler) {
	qp.MapEntry(ma, "kind", qp.String(t.Kind))
	optional(ma, "tag", t.Tag)
	if t.N != 0 {
		qp.MapEntry(ma, "n", qp.Int(int64(t.N)))
	}
}

func optional(ma datamodel.MapAssembler, key, value string) {
	if value != "" {
		qp.MapEntry(ma, key, qp.String(value))
	}
}

func link(c cid.Cid) qp.Assemble { return qp.Link(cidlink.Link{Cid: c}) }

func texts(list []string) qp.Assemble {
	return qp.List(-1, func(la datamodel.ListAssembler) {
		for _, s := range list {
			qp.ListEntry(la, qp.String(s))
		}
	})
}

// manifestOf is the reverse of Manifest.node.
func manifestOf(n datamodel.Node) (*Manifest, error) {
	r := newReader(n, "")
	// Before anything else: what follows is only known of this version.
	m := &Manifest{Version: r.uint("version")}
	if r.err != nil {
		return nil, r.err
	}
	if m.Version != ManifestVersion {
		return nil, fmt.Errorf("%w: %d", ErrVersion, m.Version)
	}
	m.Profile = r.text("profile")
	if id := r.bytes("instance"); len(id) == len(m.Instance) {
		copy(m.Instance[:], id)
	} else {
		r.fail("instance", "is not 16 bytes")
	}
	m.Policy = policyOf(r.sub("policy"))
	for _, t := range r.list("triggers") {
		m.Triggers = append(m.Triggers, Trigger{Kind: t.text("kind"), Tag: t.optText("tag"), N: t.optUint("n")})
		r.close(t)
	}
	m.Sequence, m.Epoch = r.uint("sequence"), r.uint("epoch")
	if r.has("height") {
		h := r.uint("height")
		m.Height = &h
	}
	m.Time = timeOf(r)
	if r.has("parent") {
		p := r.sub("parent")
		m.Parent = &Parent{Savepoint: p.binaryCID("savepoint"), Sequence: p.uint("sequence")}
		r.close(p)
	}
	m.State = r.link("state")
	t, c, p := r.sub("totals"), r.sub("consistency"), r.sub("provider")
	m.Totals = Totals{t.uint("documents"), t.uint("bytes")}
	m.Consistency = Consistency{c.text("method"), c.bool("consistent")}
	m.Provider = Provider{p.text("name"), p.texts("plugins")}
	readOptional(r, m)
	tool := r.sub("tool")
	m.Tool = Tool{tool.text("name"), tool.text("version")}
	r.close(t, c, p, tool)
	m.unknown = r.rest()
	return m, r.err
}

func readOptional(r *reader, m *Manifest) {
	if r.has("resources") {
		m.Resources = r.link("resources")
	}
	if r.has("partial") {
		m.Partial = r.someTexts("partial")
	}
	if r.has("secrets") {
		m.Secrets = r.someTexts("secrets")
	}
	if r.has("encryption") {
		e := r.sub("encryption")
		m.Encryption = &Encryption{e.text("scheme"), e.text("keyId"), e.bool("names")}
		r.close(e)
	}
	if r.has("labels") {
		l := r.sub("labels")
		if len(l.keys) == 0 {
			r.fail("labels", "is present and empty")
		}
		m.Labels = map[string]string{}
		for _, k := range slices.Clone(l.keys) {
			m.Labels[k] = l.text(k)
		}
		r.close(l)
	}
}

func policyOf(p *reader) Policy {
	out := Policy{ID: p.text("id"), Name: p.optText("name"), Version: p.optText("version"), Topic: p.optText("topic")}
	if p.has("config") {
		out.Config = p.link("config")
	}
	p.parent.close(p)
	return out
}

func timeOf(r *reader) time.Time {
	text := r.text("time")
	t, err := time.Parse(TimeFormat, text)
	if err != nil || t.UTC().Format(TimeFormat) != text {
		r.fail("time", "is not RFC 3339 in UTC with nanoseconds")
	}
	return t.UTC()
}
