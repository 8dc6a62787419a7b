package savepoints_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
)

const someCID = "bafyreigaknpexyvxt76zgkitavbwx6ejgfheup5oybpm77f3pxzrvwpfdi"

func TestParseRef(t *testing.T) {
	c := cid.MustParse(someCID)
	for text, want := range map[string]savepoints.Ref{
		someCID:                         {CID: c},
		"p@latest":                      {Policy: "p"},
		"p@1":                           {Policy: "p", Sequence: 1},
		"p@9223372036854775807":         {Policy: "p", Sequence: 1<<63 - 1},
		"A-z_0.9%2F@12":                 {Policy: "A-z_0.9%2F", Sequence: 12},
		"p:block_1":                     {Policy: "p", Block: "block_1"},
		"p:latest":                      {Policy: "p", Block: "latest"},
		"..@latest":                     {Policy: ".."},
		"p:" + "%20x":                   {Policy: "p", Block: "%20x"},
		strings.Repeat("x", 128) + "@1": {Policy: strings.Repeat("x", 128), Sequence: 1},
	} {
		got, err := savepoints.ParseRef(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	for _, text := range []string{
		"", "p", "@", "p@", "@1", "p@0", "p@-1", "p@+1", "p@1.0", "p@ 1", "p@9223372036854775808", "p@99999999999999999999", "p@Latest",
		"p:", ":b", "p:a:b", "p:a@1", "p@1:b", "p q@1", "p/q@1", "p%@1", "p%2@1", "p%zz@1", "é@1", "p\n@1", "p@1\n",
		someCID + "@1", someCID + ":b", "p:" + someCID, someCID[:40], "/ipfs/" + someCID, strings.Repeat("x", 129) + "@1",
	} {
		if got, err := savepoints.ParseRef(text); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "A.b-c_d", "%41", "%4a%4A", "...", strings.Repeat("z", 128), "latest", "1"} {
		if err := savepoints.CheckID("policy", id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", " ", "a b", "a/b", "a@b", "a:b", "%", "%4", "%4g", "%%41", "é", "a\x00", "a\n", strings.Repeat("z", 129), someCID, "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"} {
		err := savepoints.CheckID("policy", id)
		if !errors.Is(err, savepoints.ErrUsage) || !strings.Contains(err.Error(), "policy") {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestResolve(t *testing.T) {
	b, other := initBank(t), initBank(t)
	at := func(b *savepoints.Bank, i int, policy string, blocks ...string) savepoints.Savepoint {
		s, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: policy, Blocks: blocks})
		must(t, err)
		return s.Savepoint
	}
	p1, p2, p3 := at(b, 1, "p", "x"), at(b, 2, "p", "x", "y"), at(b, 3, "p")
	q1 := at(b, 4, "q", "y")
	// The same policy id in another log.
	o1 := at(other, 5, "p", "z")
	must(t, exportTo(t, other, o1, b))
	policy, err := other.TrustPolicy()
	must(t, err)
	b, _, err = b.Trust(policy)
	must(t, err)

	for _, c := range []struct {
		ref    string
		origin string
		want   savepoints.Savepoint
		err    error
	}{
		{p1.CID.String(), "", p1, nil}, {o1.CID.String(), "", o1, nil}, {o1.CID.String(), b.Origin(), o1, savepoints.ErrNotFound},
		{"p@2", "", p2, nil}, {"p@3", "", p3, nil}, {"p@4", "", p3, savepoints.ErrNotFound},
		{"p@1", "", p1, savepoints.ErrAmbiguous}, {"p@latest", "", p1, savepoints.ErrAmbiguous},
		{"p@1", b.Origin(), p1, nil}, {"p@1", other.Origin(), o1, nil}, {"p@latest", b.Origin(), p3, nil}, {"p@latest", other.Origin(), o1, nil},
		{"p:x", "", p2, nil}, {"p:y", "", p2, nil}, {"p:z", "", o1, nil}, {"p:z", b.Origin(), o1, savepoints.ErrNotFound},
		{"q:y", "", q1, nil}, {"q:x", "", q1, savepoints.ErrNotFound}, {"r@latest", "", q1, savepoints.ErrNotFound},
		{someCID, "", q1, savepoints.ErrNotFound}, {"p@1", "elsewhere", q1, savepoints.ErrNotFound},
	} {
		ref, err := savepoints.ParseRef(c.ref)
		must(t, err)
		got, err := b.Resolve(ctx, ref, c.origin)
		if !errors.Is(err, c.err) || c.err == nil && (got.CID != c.want.CID || got.Manifest == nil) {
			t.Errorf("%s of %q: %s, %v", c.ref, c.origin, got.CID, err)
		}
	}
	l, err := b.List(ctx, "p")
	if err != nil || len(l) != 4 {
		t.Errorf("%d of policy p, %v", len(l), err)
	}
	// Whom nobody trusts is not listed.
	plain := reopen(t, b)
	if l := list(t, plain); len(l) != 4 {
		t.Errorf("%d without the other's policy", len(l))
	}
}
