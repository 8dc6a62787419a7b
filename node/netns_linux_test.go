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
	children["dialled"] = inNetwork(dialStranger)
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

// runInNetwork runs one of children in a network of its own, which takes root and "ip". In
// CI it must work.
func runInNetwork(t *testing.T, name string) {
	t.Helper()
	cmd := child(t, name, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	_, err := exec.LookPath("ip")
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("a network of its own: %v", err)
		}
		t.Skipf("only root can make a network, with \"ip\": %v", err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	must(t, cmd.Wait())
}

// From elsewhere than loopback only those may connect who are listed, or have the
// swarm key, unless the node is open.
func TestStrangersAreRefused(t *testing.T) { runInNetwork(t, "strangers") }

// Whom this node connects to, because somebody named its address, may read no more for
// that than before: by bitswap and over the gateway nothing, unless it is admitted, and
// then until that ends.
func TestDialledStrangersReadNothing(t *testing.T) { runInNetwork(t, "dialled") }

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

func dialStranger(dir string) error {
	here, _, err := makeRepo(dir, "here")
	if err != nil {
		return err
	}
	var wanted []dag.Block
	for i := range 4 {
		wanted = append(wanted, dag.RawBlock([]byte{byte(i)}))
	}
	if err := errors.Join(here.Blocks.Put(ctx, wanted...), here.Blocks.Sync(ctx)); err != nil {
		return err
	}
	_, friend, err := makeRepo(dir, "friend")
	if err != nil {
		return err
	}
	strange, _, err := makeRepo(dir, "stranger")
	if err != nil {
		return err
	}
	swarm := []string{"/ip4/" + lan + "/tcp/0"}
	n, err := here.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: swarm, Peers: []string{"/ip4/" + lan + "/tcp/1/p2p/" + friend.String()}})
	if err != nil {
		return err
	}
	defer n.Close()
	stranger, err := strange.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: swarm, Open: true})
	if err != nil {
		return err
	}
	defer stranger.Close()
	if err := n.Connect(ctx, stranger.Addresses()); err != nil {
		return err
	}
	reads := func(when string, b dag.Block, may bool) error {
		asked, cancel := context.WithTimeout(ctx, 30*time.Second)
		if !may {
			asked, cancel = context.WithTimeout(ctx, 2*time.Second)
		}
		defer cancel()
		src, err := strange.Dial(n.Addresses()[0])
		if err != nil {
			return err
		}
		defer src.Close()
		if _, err := src.Block(asked, b.CID); (err == nil) != may {
			return fmt.Errorf("%s, over the gateway: %w", when, err)
		}
		if _, err := stranger.bitswap.GetBlock(asked, b.CID); (err == nil) != may {
			return fmt.Errorf("%s, by bitswap: %w", when, err)
		}
		return nil
	}
	if err := reads("a stranger", wanted[0], false); err != nil {
		return err
	}
	release := n.Admit(stranger.Addresses())
	if err := reads("while it is admitted", wanted[1], true); err != nil {
		return err
	}
	again := n.Admit(stranger.Addresses())
	release()
	if err := reads("admitted twice, released once", wanted[2], true); err != nil {
		return err
	}
	again()
	return reads("afterwards", wanted[3], false)
}
