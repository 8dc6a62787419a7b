package publish_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hiero-ledger/hiero-sdk-go/v2/proto/services"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ledger is a network of consensus nodes on loopback, with one topic, and its mirror
// nodes. It checks transactions as nodes do, orders messages, and computes the running
// hash from what was submitted.
type ledger struct {
	topic   hcs.EntityID
	signers []ed25519.PublicKey // that must have signed
	nodes   map[string]hcs.EntityID

	mu       sync.Mutex
	messages []hcs.Message
	receipts map[string]*services.TransactionReceipt // by transaction id

	// What a test makes happen. They are called with mu held.
	// before may answer a submission in the ledger's place.
	before func(n int) (services.ResponseCodeEnum, error)
	// after may lose the answer to a submission that the ledger took.
	after func(n int) error
	// receipt may change what a receipt says.
	receipt       func(n int, r *services.Response)
	submits, asks int
}

func newLedger(t testing.TB, signers ...ed25519.PublicKey) *ledger {
	t.Helper()
	l := &ledger{
		topic: hcs.EntityID{Num: 4711}, signers: signers,
		nodes: map[string]hcs.EntityID{}, receipts: map[string]*services.TransactionReceipt{},
	}
	for num := int64(3); num < 5; num++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		s, n := grpc.NewServer(), &node{ledger: l, account: num}
		services.RegisterConsensusServiceServer(s, consensusService{node: n})
		services.RegisterCryptoServiceServer(s, cryptoService{node: n})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(listener)
		}()
		t.Cleanup(func() { s.Stop(); <-done })
		l.nodes[listener.Addr().String()] = hcs.EntityID{Num: num}
	}
	return l
}

// node is one consensus node.
type node struct {
	*ledger
	account int64
}

type consensusService struct {
	services.UnimplementedConsensusServiceServer
	*node
}

type cryptoService struct {
	services.UnimplementedCryptoServiceServer
	*node
}

// SubmitMessage is the node's answer to a transaction.
func (c consensusService) SubmitMessage(_ context.Context, tx *services.Transaction) (*services.TransactionResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.submits++
	if c.before != nil {
		if code, err := c.before(c.submits); code != services.ResponseCodeEnum_OK || err != nil {
			return &services.TransactionResponse{NodeTransactionPrecheckCode: code}, err
		}
	}
	code, err := c.submit(tx.GetSignedTransactionBytes())
	if err == nil && c.after != nil {
		err = c.after(c.submits)
	}
	return &services.TransactionResponse{NodeTransactionPrecheckCode: code}, err
}

func (n *node) submit(signedBytes []byte) (services.ResponseCodeEnum, error) {
	var signed services.SignedTransaction
	var body services.TransactionBody
	if err := proto.Unmarshal(signedBytes, &signed); err != nil {
		return 0, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := proto.Unmarshal(signed.GetBodyBytes(), &body); err != nil {
		return 0, status.Error(codes.InvalidArgument, err.Error())
	}
	id := body.GetTransactionID()
	submit := body.GetConsensusSubmitMessage()
	switch {
	case body.GetNodeAccountID().GetAccountNum() != n.account:
		return services.ResponseCodeEnum_INVALID_NODE_ACCOUNT, nil
	case n.receipts[id.String()] != nil:
		return services.ResponseCodeEnum_DUPLICATE_TRANSACTION, nil
	case !n.signed(&signed):
		return services.ResponseCodeEnum_INVALID_SIGNATURE, nil
	case body.GetTransactionFee() < 1_000_000:
		return services.ResponseCodeEnum_INSUFFICIENT_TX_FEE, nil
	case submit.GetTopicID().GetTopicNum() != n.topic.Num:
		return services.ResponseCodeEnum_INVALID_TOPIC_ID, nil
	case len(submit.GetMessage()) > 1024 || submit.GetChunkInfo().GetTotal() != 1:
		return services.ResponseCodeEnum_MESSAGE_SIZE_TOO_LARGE, nil
	}
	payer := id.GetAccountID()
	n.receipts[id.String()] = n.order(hcs.EntityID{Shard: payer.GetShardNum(), Realm: payer.GetRealmNum(), Num: payer.GetAccountNum()}, submit.GetMessage())
	return services.ResponseCodeEnum_OK, nil
}

// signed reports whether all signers signed, with keys of Ed25519.
func (n *node) signed(tx *services.SignedTransaction) bool {
	for _, key := range n.signers {
		found := false
		for _, pair := range tx.GetSigMap().GetSigPair() {
			found = found || string(pair.GetPubKeyPrefix()) == string(key) && ed25519.Verify(key, tx.GetBodyBytes(), pair.GetEd25519())
		}
		if !found {
			return false
		}
	}
	return true
}

// order gives a message its place.
func (l *ledger) order(payer hcs.EntityID, data []byte) *services.TransactionReceipt {
	m := hcs.Message{Topic: l.topic, Payer: payer, Time: time.Unix(1_700_000_000, 7).UTC().Add(time.Duration(len(l.messages)) * time.Second), Data: data}
	m.Sequence = int64(len(l.messages)) + 1
	var previous hcs.RunningHash
	if m.Sequence > 1 {
		previous = l.messages[m.Sequence-2].RunningHash
	}
	m.RunningHash = m.Hash(previous)
	l.messages = append(l.messages, m)
	return &services.TransactionReceipt{
		Status:                  services.ResponseCodeEnum_SUCCESS,
		TopicSequenceNumber:     uint64(m.Sequence),
		TopicRunningHash:        m.RunningHash[:],
		TopicRunningHashVersion: 3,
	}
}

// GetTransactionReceipts is the node's answer to the query for a receipt.
func (c cryptoService) GetTransactionReceipts(_ context.Context, q *services.Query) (*services.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks++
	receipt := c.receipts[q.GetTransactionGetReceipt().GetTransactionID().String()]
	code := services.ResponseCodeEnum_OK
	if receipt == nil {
		code = services.ResponseCodeEnum_RECEIPT_NOT_FOUND
	}
	body := &services.TransactionGetReceiptResponse{Header: &services.ResponseHeader{NodeTransactionPrecheckCode: code}}
	if receipt != nil {
		body.Receipt = proto.Clone(receipt).(*services.TransactionReceipt)
	}
	r := &services.Response{Response: &services.Response_TransactionGetReceipt{TransactionGetReceipt: body}}
	if c.receipt != nil {
		c.receipt(c.asks, r)
	}
	return r, nil
}

// mirrors runs two mirror nodes that show all messages; change may change what the
// second one shows.
func (l *ledger) mirrors(t testing.TB, change func([]hcs.Message) []hcs.Message) (urls []string) {
	t.Helper()
	show := func(change func([]hcs.Message) []hcs.Message) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			l.mu.Lock()
			shown := append([]hcs.Message(nil), l.messages...)
			l.mu.Unlock()
			if change != nil {
				shown = change(shown)
			}
			op, n, _ := strings.Cut(r.URL.Query().Get("sequencenumber"), ":")
			from, err := strconv.ParseInt(n, 10, 64)
			if err != nil || op != "gt" && op != "gte" {
				http.Error(w, "query", http.StatusBadRequest)
				return
			}
			if op == "gte" {
				from--
			}
			writePage(w, shown[min(from, int64(len(shown))):])
		}
	}
	for _, h := range []http.HandlerFunc{show(nil), show(change)} {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /api/v1/topics/"+l.topic.String()+"/messages", h)
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	return urls
}

func writePage(w http.ResponseWriter, messages []hcs.Message) {
	type object = map[string]any
	rows := []object{}
	for _, m := range messages {
		rows = append(rows, object{
			"consensus_timestamp":  fmt.Sprintf("%d.%09d", m.Time.Unix(), m.Time.Nanosecond()),
			"message":              base64.StdEncoding.EncodeToString(m.Data),
			"payer_account_id":     m.Payer.String(),
			"running_hash":         m.RunningHash.String(),
			"running_hash_version": 3,
			"sequence_number":      m.Sequence,
			"topic_id":             m.Topic.String(),
		})
	}
	json.NewEncoder(w).Encode(object{"links": object{"next": nil}, "messages": rows})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
