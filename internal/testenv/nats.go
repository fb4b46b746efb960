package testenv

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSOptions are what a test may want otherwise.
type NATSOptions struct {
	// Cluster is the number of servers. Zero: one, no cluster.
	Cluster int
	// NoSync leaves writes to the operating system for a while, as a server with
	// nats-server's own defaults does. False: every write is fsynced.
	NoSync bool
}

// NATS is a nats-server, or a cluster of them, as separate processes with
// JetStream.
type NATS struct {
	t     testing.TB
	nodes []*NATSNode
}

// NATSNode is one of the servers.
type NATSNode struct {
	t       testing.TB
	program string
	args    []string
	dir     string
	port    int
	now     *child
	stdin   io.Closer // closing it stops the server
}

// NATSServer starts the servers and returns when JetStream answers.
func NATSServer(t testing.TB, o NATSOptions) *NATS {
	t.Helper()
	program := NATSProgram(t)
	n := &NATS{t: t}
	for i, args := range clusterArgs(t, max(o.Cluster, 1)) {
		node := &NATSNode{t: t, program: program, dir: Dir(t), port: Freeport(t)}
		node.args = append(args, "-name", "n"+strconv.Itoa(i+1), "-store", filepath.Join(node.dir, "store"),
			"-port", strconv.Itoa(node.port), fmt.Sprintf("-sync=%t", !o.NoSync))
		n.nodes = append(n.nodes, node)
	}
	t.Cleanup(n.Stop) // after Dir's, so before them
	n.Restart()
	return n
}

// NATSProgram builds natsserver, for a test that places and starts servers itself, and
// returns its path. Its command says what the flags mean.
func NATSProgram(t testing.TB) string {
	t.Helper()
	return build(t, "github.com/trueup/trueup/internal/testenv/natsserver", false)
}

// clusterArgs are the arguments that make n servers know each other.
func clusterArgs(t testing.TB, n int) [][]string {
	t.Helper()
	all := make([][]string, n)
	if n == 1 {
		return all
	}
	var members []string
	for i := range all {
		port := strconv.Itoa(Freeport(t))
		members = append(members, "127.0.0.1:"+port)
		all[i] = []string{"-cluster-port", port}
	}
	for i := range all {
		all[i] = append(all[i], "-members", strings.Join(members, ","))
	}
	return all
}

// URL names all servers, comma-separated as nats.Connect takes them.
func (n *NATS) URL() string {
	var urls []string
	for _, node := range n.nodes {
		urls = append(urls, node.URL())
	}
	return strings.Join(urls, ",")
}

// Node is the i-th server, from 0.
func (n *NATS) Node(i int) *NATSNode { return n.nodes[i] }

// Kill9 kills all servers and returns when they are gone.
func (n *NATS) Kill9() {
	for _, node := range n.nodes {
		node.Kill9()
	}
}

// Stop stops all servers in order.
func (n *NATS) Stop() {
	for _, node := range n.nodes {
		node.Stop()
	}
}

// Restart starts every server that is down, on the same store and port, and
// returns when JetStream answers.
func (n *NATS) Restart() {
	n.t.Helper()
	for _, node := range n.nodes {
		node.start()
	}
	for _, node := range n.nodes {
		node.now.up(n.t, func() error { return jetStreamAnswers(node.URL()) })
	}
}

// URL is this server's address.
func (n *NATSNode) URL() string { return "nats://127.0.0.1:" + strconv.Itoa(n.port) }

// Kill9 kills this server and returns when it is gone.
func (n *NATSNode) Kill9() { n.end((*child).kill) }

// Stop ends this server in order.
func (n *NATSNode) Stop() {
	n.end(func(c *child) {
		_ = n.stdin.Close()
		wait := time.NewTimer(20 * time.Second)
		defer wait.Stop()
		select {
		case <-c.exited:
		case <-wait.C:
			c.kill()
		}
	})
}

// Restart starts this server again, on the same store and port, and returns when
// JetStream answers there.
func (n *NATSNode) Restart() {
	n.t.Helper()
	n.start()
	n.now.up(n.t, func() error { return jetStreamAnswers(n.URL()) })
}

func (n *NATSNode) end(how func(*child)) {
	if n.now == nil {
		return
	}
	how(n.now)
	_ = n.stdin.Close()
	n.now = nil
}

func (n *NATSNode) start() {
	n.t.Helper()
	if n.now != nil {
		return
	}
	cmd := exec.CommandContext(context.Background(), n.program, n.args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatalf("testenv: %v", err)
	}
	n.stdin = stdin
	n.now = spawn(n.t, cmd, filepath.Join(n.dir, "server.log"))
}

// jetStreamAnswers asks a question that, in a cluster, needs an elected leader.
func jetStreamAnswers(url string) error {
	c, err := nats.Connect(url, nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = js.AccountInfo(ctx)
	return err
}
