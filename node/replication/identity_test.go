package replication

import (
	"slices"
	"testing"
)

// TestIdentity: two places are one if they say so, or are at one address and do not say
// that they are two.
func TestIdentity(t *testing.T) {
	at := func(urls ...string) (out []string) {
		for _, u := range urls {
			out = append(out, addressesOf(ctx, u)...)
		}
		return out
	}
	for what, c := range map[string]struct {
		a, b Identity
		want bool
	}{
		"one peer at two addresses":      {Identity{"p", at("http://127.0.0.1:1")}, Identity{"p", at("http://192.0.2.1:2")}, true},
		"a peer and its gateway":         {Identity{"p", nil}, Identity{"p", at("http://127.0.0.1:1")}, true},
		"two peers behind one address":   {Identity{"p", at("http://127.0.0.1:1")}, Identity{"q", at("http://127.0.0.1:1")}, false},
		"one of them says nothing":       {Identity{"p", at("http://127.0.0.1:1")}, Identity{"", at("http://localhost:1")}, true},
		"loopback by number and by name": {Identity{"", at("http://127.0.0.1:1")}, Identity{"", at("http://localhost:1/")}, true},
		"loopback in two families":       {Identity{"", at("http://127.0.0.1:1")}, Identity{"", at("http://[::1]:1")}, true},
		"another of loopback":            {Identity{"", at("http://127.0.0.1:1")}, Identity{"", at("http://127.9.9.9:1")}, true},
		"two ports":                      {Identity{"", at("http://127.0.0.1:1")}, Identity{"", at("http://127.0.0.1:2")}, false},
		"a default port":                 {Identity{"", at("http://127.0.0.1")}, Identity{"", at("http://127.0.0.1:80")}, true},
		"two schemes":                    {Identity{"", at("http://127.0.0.1")}, Identity{"", at("https://127.0.0.1")}, false},
		"nothing known of either":        {Identity{}, Identity{}, false},
		"two folders":                    {Identity{"", []string{"/a"}}, Identity{"", []string{"/b"}}, false},
	} {
		if c.a.Same(c.b) != c.want || c.b.Same(c.a) != c.want {
			t.Errorf("%s: %v and %v, want %t", what, c.a, c.b, c.want)
		}
	}
	if got := addressesOf(ctx, "http://no.such.host.invalid/x"); !slices.Equal(got, []string{"no.such.host.invalid:80"}) {
		t.Errorf("a name that nobody knows is at %v", got)
	}
}
