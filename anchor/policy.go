package anchor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Policy says whose heads of one log are believed. It is what a reader chooses;
// everything else is checked against it. A Policy is not changed after
// [ParsePolicy] and safe for concurrent use.
type Policy struct {
	// Origin is the name of the log.
	Origin string
	// URLs says where the log is read: the third field of the log line, or none.
	URLs []string
	// Mirrors are further places, from comments "# ipfs-savepoint: mirror URL".
	Mirrors []string
	// MaxAge is the age from which a head is to be called stale, from
	// "# ipfs-savepoint: max-age DURATION"; 0 where the policy says nothing.
	MaxAge time.Duration
	// Floor is a tree that every head must extend, from
	// "# ipfs-savepoint: floor SIZE ROOT"; nil where there is none.
	Floor *tlog.Tree
	// Witnesses are those of the witness lines, in their order.
	Witnesses []PolicyWitness
	// Quorum says that a head counts only with cosignatures: the quorum line names
	// something else than "none".
	Quorum bool
	// PrivateIDs comes from "# ipfs-savepoint: private-ids": the records of the log
	// name what they are of by keyed hashes. To this package it means nothing.
	PrivateIDs bool
	// Topic comes from "# ipfs-savepoint: hcs TOPIC MIRROR-URL MIRROR-URL…": a public
	// ledger as a second oracle. nil where the policy names none.
	Topic *PolicyTopic
	// Warnings are for a person: what in the file has no meaning here.
	Warnings []string

	rule torchwood.Policy
	key  note.Verifier // of the log
}

// PolicyWitness is a witness line of a policy.
type PolicyWitness struct {
	Name string // in the policy
	// URL is where it takes checkpoints (c2sp.org/tlog-witness, "submission
	// prefix"); empty where the line gives none.
	URL string
	// Verifier is of its key, whose name may be another than Name.
	Verifier *torchwood.CosignatureVerifier
}

// Key returns the verifier of the log's key.
func (p *Policy) Key() note.Verifier { return p.key }

// KeyOnly returns the policy that believes whatever the log's own key signed, with
// no floor: by it a log knows its own heads, which witnesses may not have seen yet.
func (p *Policy) KeyOnly() *Policy { return keyPolicy(p.key) }

// witnessVerifiers are the keys of the witnesses.
func (p *Policy) witnessVerifiers() note.Verifiers {
	list := make([]note.Verifier, len(p.Witnesses))
	for i, w := range p.Witnesses {
		list[i] = w.Verifier
	}
	return note.VerifierList(list...)
}

// ParsePolicy reads a trust policy (c2sp.org/tlog-policy): exactly one log line,
// witness and group lines, exactly one quorum line after what it names. Comments are
// whole lines that begin with "#"; those of the form "# ipfs-savepoint: KEY VALUE" are
// read too, and unknown keys become [Policy.Warnings]. The error is a *[PolicyError].
//
// As the specification demands, no two lines may have the same public key under whatever
// names, a name is a member of one group at most, and only spaces and tabs are white
// space: a file with carriage returns is refused. What implementations read differently
// is refused too: two log lines, of which one or both must have signed; a "#" within a
// line; Unicode's other white space in a line that is no comment; the log's key as a
// witness's, since nobody is their own witness; the log's name as that of a witness's key,
// since a cosignature would pass for a signature of the log.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > MaxPolicySize {
		return nil, &PolicyError{Err: fmt.Errorf("%d bytes, more than %d", len(b), MaxPolicySize)}
	}
	if !utf8.Valid(b) {
		return nil, &PolicyError{Err: errors.New("not UTF-8")}
	}
	p := &policyParser{&Policy{}, map[string]string{}, map[string]bool{}}
	for i, line := range strings.Split(string(b), "\n") {
		err := checkOctets(line)
		if err == nil {
			err = p.parseLine(strings.Trim(line, policySpace))
		}
		if err != nil {
			return nil, &PolicyError{Line: i + 1, Err: err}
		}
	}
	if p.Origin == "" {
		return nil, &PolicyError{Err: errors.New("no log line")}
	}
	rule, err := torchwood.ParsePolicy(b)
	if err != nil {
		e := &PolicyError{Err: err}
		// The parser tells the line only in its message.
		if _, scanErr := fmt.Sscanf(err.Error(), "line %d:", &e.Line); scanErr == nil {
			_, rest, _ := strings.Cut(err.Error(), ": ")
			e.Err = errors.New(rest)
		}
		return nil, e
	}
	p.rule = rule
	return p.Policy, nil
}

// errSecret: whoever gives the policy away gives away the key.
var errSecret = errors.New("a secret key, where a public one belongs: a trust policy is public")

// policySpace is all the white space there is within a line of a policy.
const policySpace = " \t"

// checkOctets refuses the control characters that a policy must not have.
func checkOctets(line string) error {
	for _, c := range []byte(line) {
		switch {
		case c == '\r':
			return errors.New("a carriage return: lines end with a line feed alone")
		case c < ' ' && c != '\t' || c == 0x7f:
			return fmt.Errorf("control character %#02x", c)
		}
	}
	return nil
}

// policyFields returns the items of a line.
func policyFields(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(policySpace, r) })
}

// policyParser takes from a policy what the rule of its signatures does not need, and
// refuses what the specification forbids, or implementations of it read differently.
type policyParser struct {
	*Policy
	keys  map[string]string // by public key: whose it is
	names map[string]bool   // of witnesses and groups so far: whether a group has it as a member
}

func (p *policyParser) parseLine(line string) error {
	if HoldsSecret(line) {
		return errSecret
	}
	if comment, ok := strings.CutPrefix(line, "#"); ok {
		if own, ok := strings.CutPrefix(strings.Trim(comment, policySpace), "ipfs-savepoint:"); ok {
			return p.parseOwn(policyFields(own))
		}
		return nil
	}
	if strings.Contains(line, "#") {
		return errors.New("a comment must have a line of its own")
	}
	f := policyFields(line)
	if slices.ContainsFunc(f, func(item string) bool { return strings.ContainsFunc(item, unicode.IsSpace) }) {
		return errors.New("white space that is neither a space nor a tab")
	}
	if len(f) == 0 {
		return nil
	}
	switch f[0] {
	case "log":
		return p.parseLog(f)
	case "witness":
		return p.parseWitness(f)
	case "group":
		return p.parseGroup(f)
	case "quorum":
		return p.parseQuorum(f)
	}
	return nil
}

func (p *policyParser) parseQuorum(f []string) error {
	if len(f) != 2 {
		return errors.New("a quorum line is \"quorum NAME\" or \"quorum none\"")
	}
	p.Quorum = f[1] != "none"
	if _, ok := p.names[f[1]]; p.Quorum && !ok {
		return fmt.Errorf("no line before defines %q", f[1])
	}
	return nil
}

// define takes the name of a witness or a group.
func (p *policyParser) define(name string) error {
	if _, ok := p.names[name]; ok || name == "none" {
		return fmt.Errorf("%q names something else", name)
	}
	p.names[name] = false
	return nil
}

// own takes a public key, which only one log or witness may have: the name in a vkey is
// what its owner says, and would make one signature count twice.
func (p *policyParser) own(vkey, owner string) error {
	_, encoded, _ := strings.Cut(vkey, "+")
	_, encoded, _ = strings.Cut(encoded, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 2 {
		return fmt.Errorf("key %q", vkey)
	}
	public := string(key[1:]) // after the type of signature
	if other, ok := p.keys[public]; ok {
		return fmt.Errorf("the key of %s is that of %s too", owner, other)
	}
	p.keys[public] = owner
	return nil
}

func (p *policyParser) parseGroup(f []string) error {
	if len(f) < 4 {
		return errors.New("a group line is \"group NAME K|any|all NAME...\"")
	}
	if k := f[2]; k != "any" && k != "all" && strings.Trim(k, "0123456789") != "" {
		return fmt.Errorf("invalid group threshold %q", k)
	}
	for _, member := range f[3:] {
		taken, ok := p.names[member]
		switch {
		case !ok:
			return fmt.Errorf("no line before defines %q", member)
		case taken:
			return fmt.Errorf("%q is the member of a group already", member)
		}
		p.names[member] = true
	}
	return p.define(f[1])
}

func (p *policyParser) parseWitness(f []string) error {
	if len(f) != 3 && len(f) != 4 {
		return errors.New("a witness line is \"witness NAME VKEY [URL]\"")
	}
	if err := p.define(f[1]); err != nil {
		return err
	}
	v, err := torchwood.NewCosignatureVerifier(f[2])
	if err != nil {
		return fmt.Errorf("witness key %q: %w", f[2], err)
	}
	if err := p.own(f[2], "witness "+f[1]); err != nil {
		return err
	}
	w := PolicyWitness{Name: f[1], Verifier: v}
	if len(f) == 4 {
		u, err := url.Parse(f[3])
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("witness URL %q", f[3])
		}
		w.URL = strings.TrimSuffix(f[3], "/")
	}
	p.Witnesses = append(p.Witnesses, w)
	return p.distinct()
}

// distinct refuses a witness's key that has the log's name.
func (p *policyParser) distinct() error {
	for _, w := range p.Witnesses {
		if w.Verifier.Name() == p.Origin {
			return fmt.Errorf("the key of witness %s has the name of the log, %s: a witness's key needs another", w.Name, p.Origin)
		}
	}
	return nil
}

func (p *policyParser) parseLog(f []string) error {
	if p.Origin != "" {
		return errors.New("a second log line; each log has a policy of its own")
	}
	if len(f) != 2 && len(f) != 3 {
		return errors.New("a log line is \"log VKEY [URL]\"")
	}
	v, err := note.NewVerifier(f[1])
	if err != nil {
		return fmt.Errorf("log key %q: %w", f[1], err)
	}
	if err := CheckOrigin(v.Name()); err != nil {
		return err
	}
	p.Origin, p.URLs, p.key = v.Name(), f[2:], v
	if err := p.own(f[1], "the log"); err != nil {
		return err
	}
	return p.distinct()
}

func (p *Policy) parseOwn(f []string) error {
	if len(f) == 0 {
		return nil
	}
	switch key, values := f[0], f[1:]; {
	case key == "mirror" && len(values) == 1:
		p.Mirrors = append(p.Mirrors, values[0])
	case key == "max-age" && len(values) == 1 && p.MaxAge == 0:
		d, err := time.ParseDuration(values[0])
		if err != nil || d <= 0 {
			return fmt.Errorf("max-age %q is not a duration such as 24h", values[0])
		}
		p.MaxAge = d
	case key == "floor" && len(values) == 2 && p.Floor == nil:
		size, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || size < 0 || size > maxSize {
			return fmt.Errorf("floor size %q", values[0])
		}
		root, err := base64.StdEncoding.Strict().DecodeString(values[1])
		if err != nil || len(root) != tlog.HashSize {
			return fmt.Errorf("floor root %q is not the base64 of a hash", values[1])
		}
		p.Floor = &tlog.Tree{N: size, Hash: tlog.Hash(root)}
	case key == "private-ids" && len(values) == 0:
		p.PrivateIDs = true
	case key == "hcs" && p.Topic == nil:
		t, err := parseTopic(values)
		if err != nil {
			return err
		}
		p.Topic = t
	case key == "mirror" || key == "max-age" || key == "floor" || key == "private-ids" || key == "hcs":
		return fmt.Errorf("%s is given twice or has the wrong number of values", key)
	default:
		p.Warnings = append(p.Warnings, fmt.Sprintf("unknown key %q", key))
	}
	return nil
}

// FormatPolicy returns a policy that trusts whoever holds the log's own key. urls says
// where the log is read: one, or none.
func FormatPolicy(vkey string, urls ...string) []byte {
	return []byte("# Trust policy (c2sp.org/tlog-policy): heads of this log are believed if this key signed them.\n" +
		policyComment + logLine(vkey, urls) + "quorum none\n")
}

func logLine(vkey string, urls []string) string {
	return strings.Join(append([]string{"log", vkey}, urls...), " ") + "\n"
}

// PrivateIDsLine is the line of a policy that sets [Policy.PrivateIDs].
const PrivateIDsLine = "# ipfs-savepoint: private-ids\n"

const policyComment = "# It is public. Whoever restores or audits needs it from a place that they trust.\n"

// FormatWitnessedPolicy returns a policy that trusts heads which the log's own key and
// so many of the witnesses have signed. Each witness is what follows "witness" in its
// line: NAME VKEY [URL]. urls is as at [FormatPolicy]. The error is a *[PolicyError].
func FormatWitnessedPolicy(vkey string, witnesses []string, quorum int, urls ...string) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Trust policy (c2sp.org/tlog-policy): heads of this log are believed if this key and %d of these witnesses signed them.\n", quorum)
	b.WriteString(policyComment + logLine(vkey, urls))
	group := ""
	for _, w := range witnesses {
		f := policyFields(w)
		if HoldsSecret(w) {
			return nil, &PolicyError{Err: errSecret}
		}
		if len(f) == 0 || strings.ContainsAny(w, "\n\r#") {
			return nil, &PolicyError{Err: fmt.Errorf("witness %q is not NAME VKEY [URL]", w)}
		}
		group += " " + f[0]
		b.WriteString("witness " + strings.Join(f, " ") + "\n")
	}
	fmt.Fprintf(&b, "group quorum-of-witnesses %d%s\nquorum quorum-of-witnesses\n", quorum, group)
	text := []byte(b.String())
	_, err := ParsePolicy(text)
	return text, err
}

// keyPolicy is the policy by which a log knows its own heads.
func keyPolicy(v note.Verifier) *Policy {
	return &Policy{
		Origin: v.Name(), key: v,
		rule: torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v)),
	}
}
