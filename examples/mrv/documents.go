package mrv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The collections of a state, named as Guardian names them where it has them.
const (
	colAggregate = "aggregate_vc"    // credentials that wait for a condition
	colState     = "block_state"     // what a block remembers, by tag
	colDid       = "did_document"    // who takes part
	colHistory   = "document_state"  // status changes of credentials
	colInputs    = "inputs"          // script entries not consumed yet
	colMint      = "mint_request"    // what is to be minted
	colRun       = "policy_state"    // the one record of the run itself
	colRoles     = "policy_roles"    // who has which role
	colSplit     = "split_documents" // residues below a threshold
	colTimers    = "timers"          // timers, by tag
	colVc        = "vc_document"     // credentials
	colVp        = "vp_document"     // presentations, one for each mint
)

// runPath is the record of the run itself.
const runPath = colRun + "/run.json"

func collections() []string {
	return []string{colAggregate, colState, colDid, colHistory, colInputs, colMint, colRun, colRoles, colSplit, colTimers, colVc, colVp}
}

// runRecord is what the engine itself has to remember.
type runRecord struct {
	PolicyID      string         `json:"policyId"`
	PolicyName    string         `json:"policyName"`
	PolicyVersion string         `json:"policyVersion"`
	PolicyHash    string         `json:"policyHash"`
	Seed          string         `json:"seed"` // ids are derived from it; not a secret
	Height        uint64         `json:"height"`
	Clock         time.Time      `json:"clock"`
	LastID        uint64         `json:"lastId"` // ids handed out so far
	Inputs        int            `json:"inputs"` // length of the script
	NextInput     int            `json:"nextInput"`
	Ended         bool           `json:"ended"`
	Documents     map[string]int `json:"documents"` // by collection, so that a loss shows
}

// inputRow is a queued input.
type inputRow struct {
	Index int             `json:"index"`
	At    time.Time       `json:"at"`
	User  string          `json:"user"`
	Block string          `json:"block"`
	Data  json.RawMessage `json:"data"`
}

// timerRow is the state of a timerBlock. NextFire means nothing while the
// timer is not active.
type timerRow struct {
	PolicyID  string    `json:"policyId"`
	BlockID   string    `json:"blockId"`
	BlockTag  string    `json:"blockTag"`
	Active    bool      `json:"active"`
	Ticks     int       `json:"ticks"`
	NextFire  time.Time `json:"nextFire"`
	Documents []string  `json:"documents"` // credentials to go on with
}

// stateRow is the state of a block; S depends on the block type.
type stateRow[S any] struct {
	PolicyID string `json:"policyId"`
	BlockID  string `json:"blockId"`
	BlockTag string `json:"blockTag"`
	State    S      `json:"blockState"`
}

type stepState struct {
	Index int `json:"index"` // the active child
}

type requestState struct {
	RestoreData map[string]any `json:"restoreData"` // source of the read-only fields
	Ref         []string       `json:"ref"`         // credentials the next one relates to
}

type buttonState struct {
	Documents []string `json:"documents"` // credentials that wait for the decision
}

type aggregateState struct {
	Queue []string `json:"queue"` // ids in aggregate_vc, oldest first
}

type calculateState struct {
	Runs int `json:"runs"`
}

type roleRow struct {
	ID       string    `json:"id"`
	UUID     string    `json:"uuid"`
	PolicyID string    `json:"policyId"`
	DID      string    `json:"did"`
	Role     string    `json:"role"`
	Active   bool      `json:"active"`
	Created  time.Time `json:"createDate"`
}

type didRow struct {
	ID       string    `json:"id"`
	PolicyID string    `json:"policyId"`
	DID      string    `json:"did"`
	Status   string    `json:"status"`
	Document didDoc    `json:"document"`
	Created  time.Time `json:"createDate"`
}

type didDoc struct {
	Context string `json:"@context"`
	ID      string `json:"id"`
}

// vcRow is a stored credential. Hash covers the whole Document.
type vcRow struct {
	ID            string     `json:"id"`
	Hash          string     `json:"hash"`
	HederaStatus  string     `json:"hederaStatus"`
	Type          string     `json:"type"`
	PolicyID      string     `json:"policyId"`
	Tag           string     `json:"tag"`
	Schema        string     `json:"schema"`
	Option        vcOption   `json:"option"`
	Relationships []string   `json:"relationships"`
	Owner         string     `json:"owner"`
	Created       time.Time  `json:"createDate"`
	Updated       time.Time  `json:"updateDate"`
	Document      credential `json:"document"`
}

type vcOption struct {
	Status  string `json:"status"`
	Comment string `json:"comment"`
}

type credential struct {
	Context []string         `json:"@context"`
	ID      string           `json:"id"`
	Type    []string         `json:"type"`
	Issuer  string           `json:"issuer"`
	Issued  time.Time        `json:"issuanceDate"`
	Subject []map[string]any `json:"credentialSubject"`
}

func (r *vcRow) subject() map[string]any { return r.Document.Subject[0] }

// integer reads an integer of the subject.
func (r *vcRow) integer(name string) (int64, error) {
	n, ok := r.subject()[name].(json.Number)
	if !ok {
		return 0, fmt.Errorf("credential %s has no number %q", r.ID, name)
	}
	return n.Int64()
}

type aggregateRow struct {
	ID         string `json:"id"`
	PolicyID   string `json:"policyId"`
	BlockID    string `json:"blockId"`
	Tag        string `json:"tag"`
	Owner      string `json:"owner"`
	Hash       string `json:"hash"`
	DocumentID string `json:"documentId"`
}

type splitRow struct {
	ID         string `json:"id"`
	PolicyID   string `json:"policyId"`
	BlockID    string `json:"blockId"`
	UserID     string `json:"userId"`
	Value      int64  `json:"value"`      // always below the threshold
	DocumentID string `json:"documentId"` // the last document that went in
}

type historyRow struct {
	ID         string    `json:"id"`
	PolicyID   string    `json:"policyId"`
	DocumentID string    `json:"documentId"`
	From       string    `json:"from"`
	To         string    `json:"to"`
	User       string    `json:"user"`
	Created    time.Time `json:"createDate"`
}

type mintRow struct {
	ID           string    `json:"id"`
	PolicyID     string    `json:"policyId"`
	TokenID      string    `json:"tokenId"`
	TokenType    string    `json:"tokenType"`
	Decimals     int       `json:"decimals"`
	Amount       int64     `json:"amount"`
	Target       string    `json:"target"`
	VpID         string    `json:"vpId"`
	Memo         string    `json:"memo"`
	IsMintNeeded bool      `json:"isMintNeeded"`
	Created      time.Time `json:"createDate"`
}

type vpRow struct {
	ID       string       `json:"id"`
	Hash     string       `json:"hash"`
	PolicyID string       `json:"policyId"`
	Tag      string       `json:"tag"`
	Owner    string       `json:"owner"`
	Amount   int64        `json:"amount"`
	TokenID  string       `json:"tokenId"`
	Created  time.Time    `json:"createDate"`
	Document presentation `json:"document"`
}

type presentation struct {
	Context     []string     `json:"@context"`
	ID          string       `json:"id"`
	Type        []string     `json:"type"`
	Credentials []credential `json:"verifiableCredential"`
}

// docPath is the path of a document.
func docPath(collection, id string) string { return collection + "/" + id + ".json" }

// partPath takes a path apart; ok is false for what no state contains.
func partPath(path string) (collection, id string, ok bool) {
	collection, file, _ := strings.Cut(path, "/")
	id, isJSON := strings.CutSuffix(file, ".json")
	return collection, id, isJSON && validName(id) && slices.Contains(collections(), collection)
}

func inputID(index int) string { return fmt.Sprintf("%06d", index) }

// encode writes v as compact JSON and a line end. Struct fields keep their
// order and map keys are sorted, so equal values give equal bytes.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// decodeStrict reads one JSON value and refuses unknown fields and anything
// behind the value. Numbers stay exact.
func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// hashOf is the recorded hash of a credential or presentation.
func hashOf(v any) (string, error) {
	b, err := encode(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// uuidOf derives a uuid-shaped id (version 8, "custom") from parts.
func uuidOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
