package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// runLimit is how long a command of a script may take.
	runLimit = 30 * time.Second
	// waitLimit is how long a script waits for something to happen.
	waitLimit = time.Minute
	// answerLimit is how long a gateway may take that looks nowhere else.
	answerLimit = 20 * time.Second
	pollEvery   = 2 * time.Millisecond
)

// TestScript runs the program, built as a user gets it, in real processes; each
// script in testdata/script shows one property.
func TestScript(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "ipfs-savepoint"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           condition,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("SHARED", sharedData())
			e.Values[processesKey{}] = processes{}
			e.Values[topicKey{}] = newTopic()
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run":          cmdRun,         // run STATUS ARGS...
			"json":         cmdJSON,        // json VAR PATH [FILE]
			"is":           cmdIs,          // is PATH VALUE [FILE]
			"fields":       cmdFields,      // fields PATH NAME...
			"get":          cmdGet,         // get STATUS URL [HEADER=VALUE...]
			"send":         cmdSend,        // send METHOD STATUS URL BODY [HEADER=VALUE...]
			"await":        cmdAwait,       // await FILE [TEXT]
			"await-get":    cmdAwaitGet,    // await-get URL
			"named":        cmdNamed,       // named VAR FILE
			"sha256":       cmdSHA256,      // sha256 VAR TEXT
			"mode":         cmdMode,        // mode PERM FILE...
			"documents":    cmdDocuments,   // documents DIR NUMBER BYTES
			"nothing":      cmdNothing,     // nothing DIR
			"serve":        cmdServe,       // serve PREFIX REPO [ARGS...]
			"start":        cmdStart,       // start NAME ARGS...
			"end":          cmdEnd,         // end NAME SIGNAL [STATUS]
			"kill-writing": cmdKillWriting, // kill-writing TARGET NUMBER ARGS...
			"takes":        cmdTakes,       // takes NUMBER SOURCE
			"hold":         cmdHold,        // hold REPO
			"tmpfs":        cmdTmpfs,       // tmpfs DIR SIZE
			"flip":         cmdFlip,        // flip FILE OFFSET|-FROMEND|TEXT
			"damage-packs": cmdDamagePacks, // damage-packs REPO NUMBER
			"damage-file":  cmdDamageFile,  // damage-file REPO FOLDER [ARGS...]
			"damage-car":   cmdDamageCAR,   // damage-car FILE TRUST NUMBER
			"cut-car":      cmdCutCAR,      // cut-car FILE TRUST
			"proxy":        cmdProxy,       // proxy VAR TARGET LIE
			"craft":        cmdCraft,       // craft KIND FILE TRUST
			"bad-names":    cmdBadNames,    // bad-names KIND DIR
			"topic":        cmdTopic,       // topic VAR
			"announce":     cmdAnnounce,    // announce (after "log head --json")
			"mirror-lie":   cmdMirrorLie,   // mirror-lie none|down|tamper|other
			"identity":     cmdIdentity,    // identity FILE VAR [VAR]
			"holds":        cmdHolds,       // holds FILE|DIR REPO [IDENTITY]
		},
	})
}

// sharedData is the folder of real documents and policies.
func sharedData() string {
	if dir := os.Getenv("IPFS_SAVEPOINT_SHARED"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs("../../../shared")
	if err != nil {
		return ""
	}
	return dir
}

func condition(cond string) (bool, error) {
	switch cond {
	case "shared":
		_, err := os.Stat(filepath.Join(sharedData(), "data", "documents"))
		return err == nil, nil
	case "tmpfs":
		return canMount() || os.Getenv("CI") != "", nil // in CI it must work
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// cmdRun runs the program and demands an exit status. Whatever the command: with
// --json nothing but JSON comes to standard output, a failure says why, and a
// panic is never an answer.
func cmdRun(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: run STATUS ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	start := time.Now()
	got := exitStatus(ts, ts.Exec("ipfs-savepoint", args[1:]...))
	if took := time.Since(start); took > runLimit {
		ts.Fatalf("it took %v", took)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if strings.Contains(stderr, "panic:") || strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("it panicked")
	}
	if want != 0 && !strings.Contains(stderr, "ipfs-savepoint: ") {
		ts.Fatalf("it failed without a word")
	}
	if !slices.Contains(args, "--json") {
		return
	}
	for line := range strings.Lines(stdout) {
		if !json.Valid([]byte(line)) {
			ts.Fatalf("not JSON on standard output: %s", line)
		}
	}
	if want != 0 && !strings.Contains(stdout, `{"error":{"code":"`) {
		ts.Fatalf("no error in JSON")
	}
}

// exitStatus is the status of a program that ran, -1 if a signal ended it.
func exitStatus(ts *testscript.TestScript, err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	return exit.ExitCode()
}

// lookup reads the value at a dotted path in the first JSON document of a file.
func lookup(ts *testscript.TestScript, path, file string) any {
	var v any
	if err := json.NewDecoder(strings.NewReader(ts.ReadFile(file))).Decode(&v); err != nil {
		ts.Fatalf("%s: %v", file, err)
	}
	if path == "." {
		return v
	}
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			inner, ok := x[key]
			if !ok {
				ts.Fatalf("no field %q of %s", key, path)
			}
			v = inner
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				ts.Fatalf("no element %q of %s", key, path)
			}
			v = x[i]
		default:
			ts.Fatalf("%s: nothing at %q", path, key)
		}
	}
	return v
}

func lookupText(ts *testscript.TestScript, path, file string) string {
	switch v := lookup(ts, path, file).(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		data, err := json.Marshal(v)
		ts.Check(err)
		return string(data)
	}
}

func fileArg(args []string, i int) string {
	if len(args) > i {
		return args[i]
	}
	return "stdout"
}

func cmdJSON(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], lookupText(ts, args[1], fileArg(args, 2)))
}

func cmdIs(ts *testscript.TestScript, neg bool, args []string) {
	if got := lookupText(ts, args[0], fileArg(args, 2)); (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

// cmdFields demands exactly these fields of an object on standard output.
func cmdFields(ts *testscript.TestScript, _ bool, args []string) {
	object, ok := lookup(ts, args[0], "stdout").(map[string]any)
	if !ok {
		ts.Fatalf("%s is not an object", args[0])
	}
	got, want := slices.Sorted(maps.Keys(object)), slices.Sorted(slices.Values(args[1:]))
	if !slices.Equal(got, want) {
		ts.Fatalf("the fields are %v, want %v", got, want)
	}
}

// cmdGet asks a gateway, which answers quickly even if it has nothing to give. The
// body becomes standard output, the header standard error.
func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	exchange(ts, http.MethodGet, args[0], args[1], "", args[2:])
}

// cmdSend is get with another method and a body.
func cmdSend(ts *testscript.TestScript, _ bool, args []string) {
	exchange(ts, args[0], args[1], args[2], args[3], args[4:])
}

func exchange(ts *testscript.TestScript, method, status, url, body string, headers []string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	ts.Check(err)
	for _, h := range headers {
		key, value, _ := strings.Cut(h, "=")
		req.Header.Set(key, value)
		if key == "Host" {
			req.Host = value
		}
	}
	resp, err := (&http.Client{Timeout: answerLimit}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var header bytes.Buffer
	ts.Check(resp.Header.Write(&header))
	fmt.Fprint(ts.Stderr(), header.String())
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if fmt.Sprint(resp.StatusCode) != status {
		ts.Fatalf("it answers %s", resp.Status)
	}
}

// until polls until ok, and fails the script if that takes too long.
func until(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(waitLimit); !ok(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %v for %s", waitLimit, what)
		}
	}
}

// cmdAwait waits until a file is there and holds a text.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	text := []byte(strings.Join(args[1:], " "))
	until(ts, args[0], func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && bytes.Contains(data, text)
	})
}

// cmdAwaitGet waits until a gateway has something, which holds a text.
func cmdAwaitGet(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Timeout: answerLimit}
	until(ts, args[0], func() bool {
		resp, err := client.Get(args[0])
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), strings.Join(args[1:], " "))
	})
}

// cmdNamed sets a variable to the text of a file, without white space around it.
func cmdNamed(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func cmdSHA256(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], fmt.Sprintf("%x", sha256.Sum256([]byte(args[1]))))
}

func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args[1:] {
		st, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s", file, got)
		}
	}
}

// cmdDocuments writes documents to ten collections of a folder.
func cmdDocuments(ts *testscript.TestScript, _ bool, args []string) {
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	size, err := strconv.Atoi(args[2])
	ts.Check(err)
	for i := range number {
		dir := filepath.Join(ts.MkAbs(args[0]), fmt.Sprintf("collection-%d", i%10))
		if i < 10 {
			ts.Check(os.MkdirAll(dir, 0o777))
		}
		text := fmt.Sprintf(`{"id":%d,"of":%q}`, i, args[0])
		text += strings.Repeat(" ", max(0, size-len(text)))
		ts.Check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.json", i)), []byte(text), 0o666))
	}
}

func cmdNothing(ts *testscript.TestScript, _ bool, args []string) {
	names, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(names) > 0 {
		ts.Fatalf("%s holds %v", args[0], names)
	}
}
