package publish_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hiero-ledger/hiero-sdk-go/v2/proto/services"
	hiero "github.com/hiero-ledger/hiero-sdk-go/v2/sdk"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/publish"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logKey signs heads of a log.
type logKey struct {
	signer anchor.Signer
	policy *anchor.Policy
}

func newLogKey(t testing.TB) logKey {
	t.Helper()
	skey, vkey, err := anchor.GenerateKey("log.example/ledger")
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	policy, err := anchor.ParsePolicy(anchor.FormatPolicy(vkey))
	must(t, err)
	return logKey{signer, policy}
}

func (k logKey) head(t testing.TB, n int64) anchor.Head {
	t.Helper()
	h := anchor.Head{
		Origin: k.signer.Name(), Size: n, RootHash: tlog.Hash(sha256.Sum256(fmt.Append(nil, n))),
		Root: cid.MustParse("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
	}
	var err error
	h.Checkpoint, err = note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", h.Origin, n, h.RootHash)}, k.signer)
	must(t, err)
	return h
}

// rig is a ledger with a publisher for its topic.
type rig struct {
	*ledger
	config publish.Config
	key    logKey
}

func newRig(t testing.TB) *rig {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := publish.NewKey(private)
	must(t, err)
	l := newLedger(t, public)
	return &rig{l, publish.Config{Nodes: l.nodes, Topic: l.topic, Operator: hcs.EntityID{Num: 1001}, Key: key}, newLogKey(t)}
}

func (r *rig) publisher(t testing.TB) hcs.Publisher {
	t.Helper()
	p, err := publish.New(r.config)
	must(t, err)
	return p
}

func (r *rig) publish(t testing.TB, n int64) (hcs.Receipt, error) {
	t.Helper()
	return r.publisher(t).Publish(context.Background(), r.key.head(t, n))
}

// What is published is read back from mirrors and verified, and the receipts say where.
func TestPublishAndRead(t *testing.T) {
	r := newRig(t)
	p := r.publisher(t)
	var receipts []hcs.Receipt
	for _, n := range []int64{3, 8, 21} {
		receipt, err := p.Publish(context.Background(), r.key.head(t, n))
		must(t, err)
		if receipt.Topic != r.topic || !strings.HasPrefix(receipt.Transaction, "0.0.1001@") {
			t.Fatalf("%+v", receipt)
		}
		receipts = append(receipts, receipt)
	}
	var seen []hcs.Position
	o := hcs.Options{Each: func(s hcs.Sighting) error { seen = append(seen, s.Position); return nil }}
	report, err := hcs.Read(context.Background(), r.key.policy, r.topic, r.mirrors(t, nil), o)
	must(t, err)
	if n := report.Newest; n == nil || n.Head.Size != 21 || n.Position != receipts[2].Position || n.Mirrors != 2 {
		t.Fatalf("%+v", report)
	}
	for i, receipt := range receipts {
		if seen[i] != receipt.Position || receipt.Sequence != int64(i)+1 {
			t.Fatalf("%+v, read %+v", receipt, seen[i])
		}
	}

	for name, change := range map[string]func([]hcs.Message) []hcs.Message{
		"changed": func(m []hcs.Message) []hcs.Message {
			m[1].Data = bytes.Replace(m[1].Data, []byte("\\n8\\n"), []byte("\\n9\\n"), 1)
			return m
		},
		"removed":   func(m []hcs.Message) []hcs.Message { return slices.Delete(m, 1, 2) },
		"reordered": func(m []hcs.Message) []hcs.Message { m[1], m[2] = m[2], m[1]; return m },
		"payer":     func(m []hcs.Message) []hcs.Message { m[0].Payer.Num++; return m },
	} {
		if _, err := hcs.Read(context.Background(), r.key.policy, r.topic, r.mirrors(t, change), o); !errors.Is(err, hcs.ErrChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another topic, made up soundly from one message on.
	forged := func(m []hcs.Message) []hcs.Message {
		m[1].Data = []byte("nothing")
		m[1].RunningHash = m[1].Hash(m[0].RunningHash)
		m[2].RunningHash = m[2].Hash(m[1].RunningHash)
		return m
	}
	if _, err := hcs.Read(context.Background(), r.key.policy, r.topic, r.mirrors(t, forged), o); !errors.Is(err, hcs.ErrDisagree) {
		t.Error(err)
	}
	cut := func(m []hcs.Message) []hcs.Message { return m[:2] }
	report, err = hcs.Read(context.Background(), r.key.policy, r.topic, r.mirrors(t, cut), o)
	must(t, err)
	if !report.Mirrors[1].Behind || report.Newest.Head.Size != 21 {
		t.Errorf("%+v", report)
	}
}

// Publishing goes on through what passes, and puts the message on the topic once.
func TestPublishThroughFaults(t *testing.T) {
	ok := services.ResponseCodeEnum_OK
	once := func(n int, code services.ResponseCodeEnum, err error) (services.ResponseCodeEnum, error) {
		if n == 1 {
			return code, err
		}
		return ok, nil
	}
	for name, fault := range map[string]func(*ledger){
		"busy": func(l *ledger) {
			l.before = func(n int) (services.ResponseCodeEnum, error) { return once(n, services.ResponseCodeEnum_BUSY, nil) }
		},
		"node is down": func(l *ledger) {
			l.before = func(n int) (services.ResponseCodeEnum, error) {
				return once(n, ok, status.Error(codes.Unavailable, "down"))
			}
		},
		"node refuses connections of its kind": func(l *ledger) {
			l.before = func(n int) (services.ResponseCodeEnum, error) {
				return once(n, ok, status.Error(codes.Internal, "broken"))
			}
		},
		"answer lost": func(l *ledger) {
			l.after = func(n int) error {
				if n == 1 {
					return status.Error(codes.Unavailable, "lost")
				}
				return nil
			}
		},
		"receipt comes later": func(l *ledger) {
			l.receipt = func(n int, r *services.Response) {
				if n < 3 {
					r.GetTransactionGetReceipt().Header.NodeTransactionPrecheckCode = services.ResponseCodeEnum_RECEIPT_NOT_FOUND
				}
			}
		},
		"not known yet": func(l *ledger) {
			l.receipt = func(n int, r *services.Response) {
				if n < 3 {
					r.GetTransactionGetReceipt().Receipt.Status = services.ResponseCodeEnum_UNKNOWN
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			fault(r.ledger)
			receipt, err := r.publish(t, 3)
			must(t, err)
			if len(r.messages) != 1 || receipt.Position != r.messages[0].Position {
				t.Fatalf("%+v, %d messages", receipt, len(r.messages))
			}
			if r.submits+r.asks < 3 {
				t.Fatal("there was no fault")
			}
		})
	}
}

// What fails says how, after bounded time.
func TestPublishFails(t *testing.T) {
	always := func(code services.ResponseCodeEnum, err error) func(*rig) {
		return func(r *rig) { r.before = func(int) (services.ResponseCodeEnum, error) { return code, err } }
	}
	receipt := func(change func(*services.TransactionReceipt)) func(*rig) {
		return func(r *rig) {
			r.receipt = func(_ int, a *services.Response) { change(a.GetTransactionGetReceipt().Receipt) }
		}
	}
	for name, c := range map[string]struct {
		fault func(*rig)
		want  error
	}{
		"no balance":     {always(services.ResponseCodeEnum_INSUFFICIENT_PAYER_BALANCE, nil), hcs.ErrRefused},
		"no such topic":  {func(r *rig) { r.config.Topic.Num++ }, hcs.ErrRefused},
		"fee too small":  {func(r *rig) { r.config.MaxFee = 1 }, hcs.ErrRefused},
		"another key":    {func(r *rig) { r.config.Key = newRig(t).config.Key }, hcs.ErrRefused},
		"always busy":    {always(services.ResponseCodeEnum_BUSY, nil), anchor.ErrUnavailable},
		"always down":    {always(0, status.Error(codes.Unavailable, "down")), anchor.ErrUnavailable},
		"other topic":    {receipt(func(r *services.TransactionReceipt) { r.Status = services.ResponseCodeEnum_INVALID_TOPIC_ID }), hcs.ErrRefused},
		"throttled":      {receipt(func(r *services.TransactionReceipt) { r.Status = services.ResponseCodeEnum_THROTTLED_AT_CONSENSUS }), anchor.ErrUnavailable},
		"never known":    {receipt(func(r *services.TransactionReceipt) { r.Status = services.ResponseCodeEnum_UNKNOWN }), anchor.ErrUnavailable},
		"no position":    {receipt(func(r *services.TransactionReceipt) { r.TopicSequenceNumber = 0 }), hcs.ErrReceipt},
		"short hash":     {receipt(func(r *services.TransactionReceipt) { r.TopicRunningHash = r.TopicRunningHash[:32] }), hcs.ErrReceipt},
		"hash version 2": {receipt(func(r *services.TransactionReceipt) { r.TopicRunningHashVersion = 2 }), hcs.ErrReceipt},
		"query refused": {func(r *rig) {
			r.receipt = func(_ int, a *services.Response) {
				a.GetTransactionGetReceipt().Header.NodeTransactionPrecheckCode = services.ResponseCodeEnum_NOT_SUPPORTED
			}
		}, anchor.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if c.want == anchor.ErrUnavailable { // also where it is tried again and again
				r.config.Timeout, r.config.NodeTimeout = 2*time.Second, time.Second
			}
			c.fault(r)
			if _, err := r.publish(t, 3); !errors.Is(err, c.want) {
				t.Fatalf("%v, want one that is %q", err, c.want)
			}
		})
	}
}

// A node that never answers keeps nobody longer than agreed.
func TestPublishToSilentNodes(t *testing.T) {
	r := newRig(t)
	silence := make(chan struct{})
	var release sync.Once
	end := func() { release.Do(func() { close(silence) }) }
	t.Cleanup(end)
	r.before = func(int) (services.ResponseCodeEnum, error) {
		<-silence
		return 0, status.Error(codes.Unavailable, "at last")
	}
	r.config.NodeTimeout = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := r.publisher(t).Publish(ctx, r.key.head(t, 3))
	if !errors.Is(err, anchor.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, err := r.publisher(t).Publish(ctx, r.key.head(t, 3)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	end()
}

// One publisher serves many callers.
func TestPublishConcurrently(t *testing.T) {
	r := newRig(t)
	p := r.publisher(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		h := r.key.head(t, int64(i)+1)
		wg.Go(func() { _, errs[i] = p.Publish(context.Background(), h) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	report, err := hcs.Read(context.Background(), r.key.policy, r.topic, r.mirrors(t, nil), hcs.Options{})
	must(t, err)
	if report.Heads != 8 || report.Newest.Head.Size != 8 {
		t.Fatalf("%+v", report)
	}
}

func TestPublishTooLong(t *testing.T) {
	r := newRig(t)
	h := r.key.head(t, 3)
	h.Checkpoint = append(bytes.Clone(h.Checkpoint), bytes.Repeat([]byte("\u2014 witness.example AAAA\n"), 50)...)
	if _, err := r.publisher(t).Publish(context.Background(), h); !errors.Is(err, hcs.ErrSize) {
		t.Fatal(err)
	}
	if r.submits != 0 {
		t.Fatal("it was submitted")
	}
}

// A topic with a submit key of its own wants both signatures.
func TestSubmitKey(t *testing.T) {
	r := newRig(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	r.signers = append(r.signers, public)
	if _, err := r.publish(t, 3); !errors.Is(err, hcs.ErrRefused) {
		t.Fatal(err)
	}
	key, err := publish.NewKey(private)
	must(t, err)
	r.config.SubmitKey = &key
	_, err = r.publish(t, 3)
	must(t, err)
}

// brokenSigner is a key that is out of reach.
type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("out of reach")
}

func TestSignerFails(t *testing.T) {
	r := newRig(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	r.config.Key, err = publish.NewKey(brokenSigner{private})
	must(t, err)
	if _, err := r.publish(t, 3); err == nil || !strings.Contains(err.Error(), "out of reach") || r.submits != 0 {
		t.Fatalf("%v, %d submitted", err, r.submits)
	}
}

func TestUnusableConfigs(t *testing.T) {
	good := newRig(t).config
	for name, change := range map[string]func(*publish.Config){
		"no key":          func(c *publish.Config) { c.Key = publish.Key{} },
		"no submit key":   func(c *publish.Config) { c.SubmitKey = &publish.Key{} },
		"no nodes":        func(c *publish.Config) { c.Nodes = nil },
		"unknown network": func(c *publish.Config) { c.Network = "othernet" },
		"bad address":     func(c *publish.Config) { c.Nodes = map[string]hcs.EntityID{"nowhere": {Num: 3}} },
	} {
		c := good
		change(&c)
		if _, err := publish.New(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for _, name := range []string{"mainnet", "testnet", "previewnet"} {
		c := good
		c.Network, c.Nodes = name, nil
		_, err := publish.New(c)
		must(t, err)
	}
}

func TestKeyFiles(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	pemText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	file := func(b []byte, mode os.FileMode) string {
		name := filepath.Join(t.TempDir(), "operator.key")
		must(t, os.WriteFile(name, b, 0o600))
		must(t, os.Chmod(name, mode))
		return name
	}
	for _, text := range [][]byte{pemText, []byte(hex.EncodeToString(der) + "\n")} {
		key, err := publish.LoadKey(file(text, 0o600))
		must(t, err)
		r := newRig(t)
		r.signers, r.config.Key = []ed25519.PublicKey{public}, key
		_, err = r.publish(t, 3)
		must(t, err)
	}
	ec, err := hiero.PrivateKeyGenerateEcdsa()
	must(t, err)
	_, err = publish.LoadKey(file([]byte(ec.StringDer()), 0o400))
	must(t, err)

	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p256DER, err := x509.MarshalPKCS8PrivateKey(p256)
	must(t, err)
	secret := hex.EncodeToString(private.Seed())
	for name, path := range map[string]string{
		"readable by others": file(pemText, 0o640),
		"a folder":           t.TempDir(),
		"missing":            filepath.Join(t.TempDir(), "none"),
		"empty":              file(nil, 0o600),
		"raw seed":           file([]byte(secret), 0o600),
		"cut":                file([]byte(hex.EncodeToString(der)[:90]), 0o600),
		"other curve":        file([]byte(hex.EncodeToString(p256DER)), 0o600),
		"other PEM":          file(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte(secret)}), 0o600),
		"too long":           file(append(bytes.Repeat([]byte(" "), 1<<20), pemText...), 0o600),
	} {
		_, err := publish.LoadKey(path)
		if err == nil || strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := publish.NewKey(p256); err == nil {
		t.Error("a key of P-256 is accepted")
	}
}
