// Command natsserver is one nats-server with JetStream for tests, as a process of
// its own so that it can be killed. It is apart from testenv so that only tests
// which use it pay for building it. Its one invariant: it ends when its standard
// input does, so that a test that is killed leaves no server behind.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "natsserver:", err)
		os.Exit(1)
	}
}

func run() error {
	o := &server.Options{Host: "127.0.0.1", JetStream: true, NoSigs: true}
	flag.StringVar(&o.StoreDir, "store", "", "folder of JetStream's store")
	flag.StringVar(&o.ServerName, "name", "n1", "name of this server")
	flag.IntVar(&o.Port, "port", 0, "port for clients")
	flag.BoolVar(&o.SyncAlways, "sync", true, "fsync every write")
	var members string
	flag.IntVar(&o.Cluster.Port, "cluster-port", 0, "port for the other members")
	flag.StringVar(&members, "members", "", "cluster addresses of all members, comma-separated; empty: no cluster")
	flag.StringVar(&o.Cluster.Advertise, "advertise", "", "cluster address that members tell each other of; clients are told of none then, so that all keep to the addresses they were given")
	flag.Parse()
	if members != "" {
		o.Cluster.Name, o.Cluster.Host = "testenv", "127.0.0.1"
		o.Cluster.NoAdvertise = o.Cluster.Advertise != ""
		for _, m := range strings.Split(members, ",") {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: m})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("not ready for connections")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
