package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplicaTables: a table that cannot be used keeps a repository from being opened,
// with a reason that repeats no password.
func TestReplicaTables(t *testing.T) {
	r := newRepo(t)
	must(t, r.Close())
	path := filepath.Join(r.Dir(), configFile)
	folder := "[[replicate]]\nname = 'f'\nkind = 'folder'\npath = '/x'\n"
	api := "[[replicate]]\nname = 'f'\nkind = 'kubo'\nendpoint = 'http://127.0.0.1:1'\n"
	service := strings.Replace(api, "kubo", "pinning-service", 1)
	for text, want := range map[string]string{
		folder: "",
		api + "token_file = 'x'\n" + strings.Replace(folder, "'f'", "'g'", 1):                                                          "",
		strings.Replace(api, "kubo", "savepoint", 1):                                                                                   "",
		service + "ask = ['http://127.0.0.1:8080', '/ip4/127.0.0.1/tcp/1/p2p/12D3KooWLaygdAQnRbcVPLJ6myxqS7jr4MPEe2a895Prf1Murtxy']\n": "",
		strings.Replace(api, "http", "https", 1) + "token_file = 'x'\n":                                                                "",
		strings.Replace(api, "127.0.0.1", "[::1]", 1) + "token_file = 'x'\n":                                                           "",
		strings.Replace(api, "127.0.0.1", "localhost", 1) + "token_file = 'x'\n":                                                       "",
		strings.Replace(api, "127.0.0.1", "192.0.2.1", 1):                                                                              "",
		strings.Replace(api, "127.0.0.1", "192.0.2.1", 1) + "token_file = 'x'\n":                                                       "by https only",
		strings.Replace(service, "127.0.0.1", "localhost.example", 1) + "token_file = 'x'\n":                                           "by https only",
		strings.Replace(service, "127.0.0.1:1", "192.0.2.1", 1) + "token_file = 'x'\n":                                                 "by https only",
		folder + folder:                                         "another one has this name",
		strings.Replace(folder, "'f'", "'F'", 1):                "name is not",
		strings.Replace(folder, "'f'", "''", 1):                 "name is not",
		strings.Replace(folder, "'/x'", "''", 1):                "a folder has a path",
		folder + "endpoint = 'http://127.0.0.1'\n":              "neither endpoint nor token_file",
		folder + "token_file = 'x'\n":                           "neither endpoint nor token_file",
		folder + "ask = ['http://127.0.0.1']\n":                 "ask is not of kind",
		api + "path = '/x'\n":                                   "path is of kind",
		strings.Replace(api, "kubo", "tape", 1):                 "is none of",
		strings.Replace(api, "http:", "ftp:", 1):                "not the URL of an HTTP server",
		strings.Replace(api, "127.0.0.1:1", "", 1):              "not the URL of an HTTP server",
		strings.Replace(api, "127", "me:hunter2@127", 1):        "token_file is for it",
		strings.Replace(api, "http://", "http://hunter2:%%", 1): "not a URL",
		strings.Replace(api, ":1'", ":1/?key=hunter2'", 1):      "more than a path",
		service + "ask = ['/ip4/127.0.0.1/tcp/1']\n":            "ask \"/ip4/127.0.0.1/tcp/1\"",
		service + "colour = 'blue'\n":                           `unknown key "replicate.colour"`,
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		again, err := Open(ctx, r.Dir())
		if err == nil {
			must(t, again.Close())
		}
		switch {
		case (err == nil) != (want == ""), err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %q", text, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("the reason repeats a password: %v", err)
		}
	}
}
