package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	hiero "github.com/hiero-ledger/hiero-sdk-go/v2/sdk"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
)

// Config says where heads are published and who pays.
type Config struct {
	// Network is "mainnet", "testnet" or "previewnet", with the nodes that the kit's
	// release knows; or empty, and Nodes are the addresses (host:port) of consensus nodes
	// with their accounts.
	Network string
	Nodes   map[string]hcs.EntityID
	// Topic takes the messages.
	Topic hcs.EntityID
	// Operator is the account that pays, Key its key.
	Operator hcs.EntityID
	Key      Key
	// SubmitKey is the topic's submit key where that is another than Key.
	SubmitKey *Key
	// MaxFee is the most that is paid for a message, in tinybars; by default 1 hbar
	// (100,000,000), many times what a message costs.
	MaxFee int64
	// Timeout bounds a Publish; by default 60 s. The transaction is valid for 120 s.
	Timeout time.Duration
	// NodeTimeout bounds waiting for one node; by default 10 s.
	NodeTimeout time.Duration
}

const (
	// The waits between two requests, of which each is twice the one before.
	minWait = 250 * time.Millisecond
	maxWait = 4 * time.Second
	// maxNodes is how many nodes of the ledger a message may be sent to. It is signed for
	// each of them.
	maxNodes = 5
	// runningHashVersion is the one that package hcs verifies.
	runningHashVersion = 3
)

// publisher is the hcs.Publisher of this package. It keeps no state: each Publish has
// its own client of the ledger, whose goroutines and connections end with it.
type publisher struct {
	c        Config
	topic    hiero.TopicID
	operator hiero.AccountID
}

// New returns a publisher. It contacts nobody.
func New(c Config) (hcs.Publisher, error) {
	if c.MaxFee <= 0 {
		c.MaxFee = 100_000_000
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.NodeTimeout <= 0 {
		c.NodeTimeout = 10 * time.Second
	}
	if c.Key.sign == nil || c.SubmitKey != nil && c.SubmitKey.sign == nil {
		return nil, errors.New("no key")
	}
	p := &publisher{c, entity(c.Topic).topic(), entity(c.Operator).account()}
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	return p, client.Close()
}

// entity is an id as the kit has it.
type entity hcs.EntityID

func (e entity) topic() hiero.TopicID {
	return hiero.TopicID{Shard: uint64(e.Shard), Realm: uint64(e.Realm), Topic: uint64(e.Num)}
}

func (e entity) account() hiero.AccountID {
	return hiero.AccountID{Shard: uint64(e.Shard), Realm: uint64(e.Realm), Account: uint64(e.Num)}
}

// client returns a client that makes one attempt at a time. The kit's own retries sleep
// without regard to a context, and those after a receipt have no limit.
func (p *publisher) client() (*hiero.Client, error) {
	var client *hiero.Client
	var err error
	switch p.c.Network {
	case "mainnet", "testnet", "previewnet":
		// In this form the kit does not ask the network for its nodes first.
		var config []byte
		if config, err = json.Marshal(map[string]string{"network": p.c.Network}); err == nil {
			client, err = hiero.ClientFromConfig(config)
		}
	case "":
		nodes := map[string]hiero.AccountID{}
		for address, id := range p.c.Nodes {
			nodes[address] = entity(id).account()
		}
		client, err = hiero.ClientForNetworkV2(nodes)
	default:
		err = fmt.Errorf("network %q is not known", p.c.Network)
	}
	if err != nil {
		return nil, fmt.Errorf("ledger client: %w", err)
	}
	client.SetMaxAttempts(1)
	client.SetMaxNodesPerTransaction(maxNodes)
	client.SetLogger(hiero.NewLogger("", hiero.LoggerLevelDisabled))
	return client, nil
}

// Publish implements hcs.Publisher. When ctx ends it returns after at most
// Config.NodeTimeout.
func (p *publisher) Publish(ctx context.Context, h anchor.Head) (r hcs.Receipt, err error) {
	data, err := hcs.EncodeHead(h)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.c.Timeout)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return r, err
	}
	defer client.Close()

	// The transaction, and the nodes that may get it, stay the same over all attempts, so
	// that the ledger takes it once.
	tx, err := p.transaction(client, data)
	if err != nil {
		return r, err
	}
	s := &submission{publisher: p, client: client, tx: tx, id: tx.GetTransactionID(), nodes: tx.GetNodeAccountIDs()}
	if err := retry(ctx, s.submit); err != nil {
		return r, fmt.Errorf("transaction %v: %w", s.id, err)
	}
	if err := retry(ctx, s.fetchReceipt); err != nil {
		return r, fmt.Errorf("receipt of transaction %v: %w", s.id, err)
	}
	if r, err = receipt(p.c.Topic, s.id, s.receipt); err != nil {
		err = fmt.Errorf("receipt of transaction %v: %w", s.id, err)
	}
	return r, err
}

// transaction makes the transaction that submits data, and signs it for each node.
func (p *publisher) transaction(client *hiero.Client, data []byte) (*hiero.TopicMessageSubmitTransaction, error) {
	tx := hiero.NewTopicMessageSubmitTransaction().SetTopicID(p.topic).SetMessage(data).SetMaxChunks(1)
	tx.SetTransactionID(hiero.TransactionIDGenerate(p.operator))
	tx.SetMaxTransactionFee(hiero.HbarFromTinybar(p.c.MaxFee))
	tx.SetRegenerateTransactionID(false)
	if _, err := tx.FreezeWith(client); err != nil {
		return nil, fmt.Errorf("topic message transaction: %w", err)
	}
	keys := []Key{p.c.Key}
	if p.c.SubmitKey != nil {
		keys = append(keys, *p.c.SubmitKey)
	}
	for i, node := range tx.GetNodeAccountIDs() {
		for _, k := range keys {
			signature, err := k.sign(tx.GetSignedTransactionBodyBytes(i))
			if err == nil {
				_, err = tx.AddSignatureV2(k.public, signature, tx.GetTransactionID(), node)
			}
			if err != nil {
				return nil, fmt.Errorf("signing a topic message: %w", err)
			}
		}
	}
	return tx, nil
}

// submission is one message on its way.
type submission struct {
	*publisher
	client  *hiero.Client
	tx      *hiero.TopicMessageSubmitTransaction
	id      hiero.TransactionID
	nodes   []hiero.AccountID
	asked   int // receipts asked for
	receipt hiero.TransactionReceipt
}

// submit sends the transaction to one node; after an error of a node, the next time to
// the next one.
func (s *submission) submit(ctx context.Context) (again bool, err error) {
	s.tx.SetGrpcDeadline(s.deadline(ctx))
	// The method of the embedded Transaction: the other one waits for a receipt itself,
	// and for ever where the ledger is busy.
	_, err = s.tx.Transaction.Execute(s.client)
	status, known := precheck(err)
	switch {
	case err == nil:
		return false, nil
	case known && status == hiero.StatusDuplicateTransaction:
		// An earlier attempt came through although its answer did not.
		return false, nil
	case known && !busy(status):
		return false, fmt.Errorf("%w: %w", hcs.ErrRefused, err)
	}
	return true, err
}

// fetchReceipt asks one node for the receipt, each time another.
func (s *submission) fetchReceipt(ctx context.Context) (again bool, err error) {
	node := s.nodes[s.asked%len(s.nodes)]
	s.asked++
	s.receipt, err = hiero.NewTransactionReceiptQuery().
		SetTransactionID(s.id).
		SetNodeAccountIDs([]hiero.AccountID{node}).
		SetGrpcDeadline(s.deadline(ctx)).
		Execute(s.client)
	status, known := precheck(err)
	switch {
	case err == nil && s.receipt.Status == hiero.StatusOk:
		// No receipt has this status: the kit returns an empty one, and no error, when a
		// node does not answer.
		return true, fmt.Errorf("node %v does not answer", node)
	case err == nil && busy(s.receipt.Status):
		return false, fmt.Errorf("%w: status %v", anchor.ErrUnavailable, s.receipt.Status)
	case err == nil && s.receipt.Status != hiero.StatusSuccess:
		return false, fmt.Errorf("%w: status %v", hcs.ErrRefused, s.receipt.Status)
	case err == nil:
		return false, nil
	case known && !busy(status):
		return false, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	return true, err
}

// deadline returns how long one node may take.
func (s *submission) deadline(ctx context.Context) *time.Duration {
	d := s.c.NodeTimeout
	if end, ok := ctx.Deadline(); ok {
		d = min(d, max(time.Until(end), 0))
	}
	return &d
}

// precheck returns the status by which a node declined a request, and whether it did.
func precheck(err error) (hiero.Status, bool) {
	var e hiero.ErrHederaPreCheckStatus
	declined := errors.As(err, &e)
	return e.Status, declined
}

// busy reports whether a status says that the ledger cannot tell or do it now.
func busy(s hiero.Status) bool {
	switch s {
	case hiero.StatusBusy, hiero.StatusPlatformNotActive, hiero.StatusPlatformTransactionNotCreated,
		hiero.StatusThrottledAtConsensus, hiero.StatusInvalidNodeAccount,
		hiero.StatusOk, hiero.StatusUnknown, hiero.StatusReceiptNotFound, hiero.StatusRecordNotFound:
		return true
	}
	return false
}

// retry calls f until it is done or ctx ends, with growing waits.
func retry(ctx context.Context, f func(context.Context) (again bool, err error)) error {
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		again, err := f(ctx)
		if err == nil || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", anchor.ErrUnavailable, errors.Join(ctx.Err(), err))
		case <-time.After(wait):
		}
	}
}

// receipt checks that what the ledger says can be a place in a topic. Whatever it says, the
// message was taken and paid for: another attempt would be paid for again.
func receipt(topic hcs.EntityID, id hiero.TransactionID, r hiero.TransactionReceipt) (hcs.Receipt, error) {
	out := hcs.Receipt{Topic: topic, Transaction: id.String()}
	if r.TopicSequenceNumber == 0 || r.TopicSequenceNumber > math.MaxInt64 ||
		r.TopicRunningHashVersion != runningHashVersion || len(r.TopicRunningHash) != len(out.RunningHash) {
		return out, fmt.Errorf("%w: sequence number %d, running hash of version %d and %d bytes",
			hcs.ErrReceipt, r.TopicSequenceNumber, r.TopicRunningHashVersion, len(r.TopicRunningHash))
	}
	out.Sequence, out.RunningHash = int64(r.TopicSequenceNumber), hcs.RunningHash(r.TopicRunningHash)
	return out, nil
}
