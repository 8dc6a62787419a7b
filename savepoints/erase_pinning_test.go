package savepoints_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/pinning"
)

// What is erased between the fetch of a DAG for somebody and its pin is fetched again.
func TestEraseBeforeAPin(t *testing.T) {
	b := initBank(t)
	s := take(t, b, state{"ada": filler("shared") + "ours"}, "p").Savepoint
	theirs := initBank(t)
	wanted := take(t, theirs, state{"b": filler("shared") + "theirs"}, "q").Savepoint
	_, url := countedGateway(t, theirs)

	begin, once := b.Repo().Keeping, sync.Once{}
	b.Repo().Keeping = func(ctx context.Context) (func(context.Context, func() error) (bool, error), error) {
		keep, err := begin(ctx)
		return func(ctx context.Context, f func() error) (bool, error) {
			once.Do(func() {
				if done, err := b.Erase(ctx, s, "ada"); err != nil || done.Blocks != 2 {
					t.Errorf("erased %+v, %v", done, err)
				}
			})
			return keep(ctx, f)
		}, err
	}
	token := sha256.Sum256([]byte("token"))
	service, err := pinning.Start(b.Repo(), serve(t, b), pinning.Options{
		Tokens: []string{hex.EncodeToString(token[:])}, Peers: []string{url}, Pauses: []time.Duration{time.Millisecond},
	})
	must(t, err)
	t.Cleanup(func() { service.Close() })
	body := fmt.Sprintf(`{"cid":%q}`, wanted.CID)
	r := httptest.NewRequest(http.MethodPost, "/pins", bytes.NewReader([]byte(body)))
	r.Header.Set("Authorization", "Bearer token")
	w := httptest.NewRecorder()
	service.ServeHTTP(w, r)
	if w.Code != http.StatusAccepted {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	await(t, "the pin", func() bool {
		pins, err := b.Repo().Pins()
		must(t, err)
		for _, p := range pins {
			if p.Owner == pinning.Owner && p.CID == wanted.CID {
				return true
			}
		}
		return false
	})
	if v := mustVerify(t, b); v.Erased.Documents != 1 {
		t.Errorf("it was pinned without what was erased being asked for: %+v", v)
	}
	must(t, dag.ReadAll(ctx, b.Repo().Blocks, wanted.CID))
}
