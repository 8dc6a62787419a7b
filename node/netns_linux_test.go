package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/libp2p/go-libp2p/core/peer"
)

// lan is the address of this host in a network of its own that is not loopback.
const lan = "10.77.0.1"

func init() {
	children["strangers"] = inNetwork(meetStrangers)
	children["mdns"] = inNetwork(meetByMDNS)
}

// inNetwork is f in a process whose network, of its own, has one more address, which is
// not of loopback.
func inNetwork(f func(dir string) error) func(string) error {
	return func(dir string) error {
		for _, args := range [][]string{
			{"addr", "add", lan + "/24", "dev", "lo"},
			{"link", "set", "lo", "up", "multicast", "on"},
			{"route", "add", "224.0.0.0/4", "dev", "lo"},
		} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %v: %w: %s", args, err, out)
			}
		}
		return f(dir)
	}
}

// runInNetwork runs one of children in a network of its own, which takes root. In CI it
// must work.
func runInNetwork(t *testing.T, name string) {
	t.Helper()
	cmd := child(t, name, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("a network of its own: %v", err)
		}
		t.Skipf("only root can make a network: %v", err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	must(t, cmd.Wait())
}

// From elsewhere than loopback only those may connect who are listed, or have the
// swarm key, unless the node is open.
func TestStrangersAreRefused(t *testing.T) { runInNetwork(t, "strangers") }

// Nodes on one network find each other by mDNS, if both are told to look.
func TestMDNS(t *testing.T) { runInNetwork(t, "mdns") }

func makeRepo(dir, name string) (*Repo, peer.ID, error) {
	r, err := Create(ctx, filepath.Join(dir, name))
	if err != nil {
		return nil, "", err
	}
	key, err := r.identity()
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return r, id, err
}

func meetStrangers(dir string) error {
	there, _, err := makeRepo(dir, "there")
	if err != nil {
		return err
	}
	wanted := dag.RawBlock([]byte("wanted"))
	if err := errors.Join(there.Blocks.Put(ctx, wanted), there.Blocks.Sync(ctx)); err != nil {
		return err
	}
	swarm := []string{"/ip4/" + lan + "/tcp/0", anySwarm}
	if _, err := there.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: swarm}); !errors.Is(err, ErrExposed) {
		return fmt.Errorf("an address that is not on loopback: %w", err)
	}
	friend, friendID, err := makeRepo(dir, "friend")
	if err != nil {
		return err
	}
	other, _, err := makeRepo(dir, "other")
	if err != nil {
		return err
	}
	listed := []string{"/ip4/" + lan + "/tcp/1/p2p/" + friendID.String()}
	for _, c := range []struct {
		what          string
		o             ServeOptions
		friend, other bool
	}{
		{"with a listed peer", ServeOptions{Peers: listed}, true, false},
		{"open", ServeOptions{Open: true}, true, true},
	} {
		c.o.Gateway, c.o.Swarm = anyGateway, swarm
		n, err := there.Serve(ctx, c.o)
		if err != nil {
			return err
		}
		for i, address := range n.Addresses() {
			for _, who := range []struct {
				name string
				repo *Repo
				ok   bool
			}{{"friend", friend, c.friend}, {"other", other, c.other}} {
				onLoopback := address[:len("/ip4/127")] == "/ip4/127"
				err := tryBlock(who.repo, address, wanted)
				if ok := who.ok || onLoopback; ok != (err == nil) || err != nil && !errors.Is(err, ErrUnreachable) {
					return fmt.Errorf("%s, %s, address %d %s: %w", c.what, who.name, i, address, err)
				}
			}
		}
		if err := n.Close(); err != nil {
			return err
		}
	}
	return nil
}

func tryBlock(r *Repo, address string, b dag.Block) error {
	src, err := r.Dial(address)
	if err != nil {
		return err
	}
	_, err = src.Block(ctx, b.CID)
	return errors.Join(err, src.Close())
}

func meetByMDNS(dir string) error {
	var nodes []*Network
	for _, name := range []string{"a", "b", "c"} {
		r, _, err := makeRepo(dir, name)
		if err != nil {
			return err
		}
		n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{"/ip4/" + lan + "/tcp/0"}, Open: true, MDNS: name != "c"})
		if err != nil {
			return err
		}
		defer n.Close()
		nodes = append(nodes, n)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for len(nodes[0].host.Network().ConnsToPeer(nodes[1].PeerID())) == 0 {
		select {
		case <-ctx.Done():
			return errors.New("they do not find each other")
		case <-time.After(20 * time.Millisecond):
		}
	}
	if peers := nodes[2].host.Network().Peers(); len(peers) > 0 {
		return fmt.Errorf("who was not told to look found %v", peers)
	}
	return nil
}
