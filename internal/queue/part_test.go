package queue

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	ossignal "os/signal"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"

	"github.com/trueup/trueup/internal/event"
)

// A part is this test binary, started again as a process of its own, because only a
// process can be killed. It says one line per thing that happened.
type part struct {
	cmd   *exec.Cmd
	in    io.Closer
	lines *bufio.Scanner
	once  sync.Once
}

func startPart(t testing.TB, name string, env ...string) *part {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "TRUEUP_TEST_PART="+name)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end tells the part that we died
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &part{cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(func() { p.kill() })
	return p
}

// line waits for the part's next line.
func (p *part) line(t testing.TB) string {
	t.Helper()
	if !p.lines.Scan() {
		t.Fatalf("the part ended: %v", p.lines.Err())
	}
	return p.lines.Text()
}

// kill ends the part as a power switch would, and returns what it said until then.
func (p *part) kill() (rest []string) {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		for p.lines.Scan() {
			rest = append(rest, p.lines.Text())
		}
		_ = p.cmd.Wait()
	})
	return rest
}

func runPart(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(2) }()
	switch name {
	case "server":
		return serverPart()
	case "publisher":
		q, err := Open(ctx, Config{Dir: os.Getenv("PART_DIR")})
		if err != nil {
			return err
		}
		return publisherPart(ctx, q)
	case "fulldisk":
		q, err := Open(ctx, Config{Dir: os.Getenv("PART_DIR"), AckTimeout: 300 * time.Millisecond})
		if err != nil {
			return err
		}
		return fullDiskPart(ctx, q)
	case "holder":
		q, err := Open(ctx, Config{URL: os.Getenv("PART_URL")})
		if err != nil {
			return err
		}
		return q.HoldTurn(ctx, func(ctx context.Context) error {
			fmt.Println("holding")
			<-ctx.Done()
			return nil
		})
	}
	return fmt.Errorf("no such part")
}

// publisherPart publishes from many goroutines for ever and says each id once it is
// accepted.
func publisherPart(ctx context.Context, q *Queue) error {
	var out sync.Mutex
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%s-%d-%d", os.Getenv("PART_RUN"), g, i)
				if q.Publish(ctx, []event.Event{ev(id)}) != nil {
					continue
				}
				out.Lock()
				fmt.Println(id)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return nil
}

func serverPart() error {
	port, err := strconv.Atoi(os.Getenv("PART_PORT"))
	if err != nil {
		return err
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: "external", Host: "127.0.0.1", Port: port, NoSigs: true,
		JetStream: true, StoreDir: os.Getenv("PART_DIR"), SyncAlways: true,
		JetStreamMaxStore: 1 << 40, JetStreamMaxMemory: 4 << 30,
	})
	if err != nil {
		return err
	}
	ns.Start()
	if !ns.ReadyForConnections(patience) {
		return fmt.Errorf("not ready")
	}
	fmt.Println("ready")
	select {}
}

// fullDiskPart publishes until the files may not grow any more, then lets them, and
// says what became of it.
func fullDiskPart(ctx context.Context, q *Queue) error {
	ossignal.Ignore(unix.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 512 << 10, Max: was.Max}); err != nil {
		return err
	}
	accepted := map[string]bool{}
	publish := func(i int) error {
		e := ev(fmt.Sprint(i))
		e.Body = make([]byte, 8<<10)
		err := q.Publish(ctx, []event.Event{e})
		if err == nil {
			accepted[e.ID] = true
		}
		return err
	}
	i := 0
	for ; publish(i) == nil; i++ {
	}
	fmt.Println("refused", i > 0)
	for ctx.Err() == nil && !strings.Contains(q.Ready().Why, "cannot store in") {
		pause(ctx, 5*time.Millisecond)
	}
	fmt.Println(q.Ready().Why)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	for i++; ctx.Err() == nil && publish(i) != nil; i++ {
		pause(ctx, 5*time.Millisecond)
	}
	fmt.Println("accepted again", q.Ready())
	for len(accepted) > 0 {
		d, err := q.Next(ctx)
		if err != nil {
			return err
		}
		delete(accepted, d.Envelope.Events[0].ID)
		if err := d.Ack(); err != nil {
			return err
		}
	}
	fmt.Println("nothing lost")
	return q.Close()
}

// natsServer is a real nats-server in a process of its own, on a port it keeps.
type natsServer struct {
	*part
	port string
	dir  string
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func startNATS(t testing.TB) *natsServer {
	t.Helper()
	s := &natsServer{port: freePort(t), dir: t.TempDir()}
	s.start(t)
	return s
}

func (s *natsServer) start(t testing.TB) {
	t.Helper()
	s.part = startPart(t, "server", "PART_PORT="+s.port, "PART_DIR="+s.dir)
	if got := s.line(t); got != "ready" {
		t.Fatalf("server says %q", got)
	}
}

func (s *natsServer) url() string { return "nats://127.0.0.1:" + s.port }

// external returns the config of a queue on s, migrated.
func (s *natsServer) external(t testing.TB) Config {
	t.Helper()
	c := Config{URL: s.url(), TurnTTL: time.Second, AckTimeout: 2 * time.Second, Logger: testLog(t)}
	if err := Migrate(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// proxy stands between a client and the server and can hold back either direction.
type proxy struct {
	l      net.Listener
	target string

	mu       sync.Mutex // guards the rest
	flowing  sync.Cond
	holdUp   bool // what the client says does not arrive
	holdDown bool // what the server says does not arrive
	conns    map[net.Conn]bool
	said     strings.Builder // what the client said, let through or not
	held     int             // how often the client was held back
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: strings.TrimPrefix(target, "nats://"), conns: map[net.Conn]bool{}}
	p.flowing.L = &p.mu
	var all sync.WaitGroup
	all.Go(func() { p.accept(&all) })
	t.Cleanup(func() { _ = l.Close(); p.hold(false, false); p.cut(); all.Wait() })
	return p
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) accept(all *sync.WaitGroup) {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		srv, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[srv] = true, true
		p.mu.Unlock()
		all.Go(func() { p.copy(srv, client, &p.holdUp, true) })
		all.Go(func() { p.copy(client, srv, &p.holdDown, false) })
	}
}

func (p *proxy) copy(dst, src net.Conn, held *bool, listen bool) {
	defer src.Close()
	defer dst.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		if listen {
			p.said.Write(buf[:n])
			if *held {
				p.held++
			}
		}
		for *held && p.conns[src] {
			p.flowing.Wait()
		}
		p.mu.Unlock()
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) hold(up, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holdUp, p.holdDown = up, down
	p.flowing.Broadcast()
}

// cut closes all connections; what was held is lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
	p.flowing.Broadcast()
}

// published counts how often the client sent an envelope.
func (p *proxy) published() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Count(p.said.String(), "HPUB trueup.events ")
}

// heldBack counts how often something that the client said did not arrive.
func (p *proxy) heldBack() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}
