package testenv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// run executes sql on a connection of its own. Its context outlives the test's, so
// that cleanups may use it.
func run(t *testing.T, url, sql string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, url, table string) (n int) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// service answers every byte with the same byte, and keeps what it read.
type service struct {
	addr  string
	read  chan byte
	ended chan struct{} // one for each connection that ended
}

func serve(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{addr: l.Addr().String(), read: make(chan byte, 1024), ended: make(chan struct{}, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() {
					_ = c.Close()
					s.ended <- struct{}{}
				}()
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					s.read <- b[0]
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

func (s *service) expect(t *testing.T, want string) {
	t.Helper()
	var got bytes.Buffer
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for got.Len() < len(want) {
		select {
		case b := <-s.read:
			got.WriteByte(b)
		case <-late.C:
			t.Fatalf("the service read %q, not %q", got.String(), want)
		}
	}
	if got.String() != want {
		t.Fatalf("the service read %q, not %q", got.String(), want)
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ask(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != what {
		t.Fatalf("answer %q, %v", got, err)
	}
}

func swallowed(t *testing.T, link *testenv.Link, want int64) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, func() error {
		if n := link.Dropped(); n != want {
			return fmt.Errorf("%d bytes of replies swallowed, not %d", n, want)
		}
		return nil
	})
}

func TestCut(t *testing.T) {
	t.Run("PassesEverythingOn", func(t *testing.T) {
		s := serve(t)
		ask(t, dial(t, testenv.Cut(t, s.addr).Addr()), "hello")
	})
	t.Run("CutClosesAndRefusesUntilRestore", func(t *testing.T) {
		s := serve(t)
		link := testenv.Cut(t, s.addr)
		c := dial(t, link.Addr())
		ask(t, c, "a")
		link.Cut()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("the connection lives")
		}
		if _, err := dial(t, link.Addr()).Read(make([]byte, 1)); err == nil {
			t.Fatal("a new connection works")
		}
		link.Restore()
		ask(t, dial(t, link.Addr()), "b")
	})
	t.Run("CutAfterBytesDeliversExactlyThose", func(t *testing.T) {
		s := serve(t)
		link := testenv.Cut(t, s.addr)
		c := dial(t, link.Addr())
		link.CutAfterBytes(3)
		if _, err := io.WriteString(c, "abcdef"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("an answer came")
		}
		<-s.ended
		s.expect(t, "abc")
		if n := len(s.read); n > 0 {
			t.Errorf("%d bytes more were delivered", n)
		}
		swallowed(t, link, 3)
	})
	t.Run("DropRepliesLetsTheWorkBeDone", func(t *testing.T) {
		s := serve(t)
		link := testenv.Cut(t, s.addr)
		c := dial(t, link.Addr())
		link.DropReplies()
		if _, err := io.WriteString(c, "abc"); err != nil {
			t.Fatal(err)
		}
		s.expect(t, "abc")
		swallowed(t, link, 3)
		link.Restore()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("a connection that lost bytes goes on")
		}
	})
	t.Run("StallHoldsBackAndLosesNothing", func(t *testing.T) {
		s := serve(t)
		link := testenv.Cut(t, s.addr)
		c := dial(t, link.Addr())
		ask(t, c, "a")
		s.expect(t, "a")
		link.Stall()
		if _, err := io.WriteString(c, "bc"); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var late net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &late) || !late.Timeout() {
			t.Fatalf("read through a stalled link: %v", err)
		}
		link.Restore()
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.expect(t, "bc")
	})
	t.Run("ACommitWhoseReplyIsLostHappened", func(t *testing.T) {
		direct := testenv.Postgres(t)
		run(t, direct, "CREATE TABLE done (n int)")
		cfg, err := pgx.ParseConfig(direct)
		if err != nil {
			t.Fatal(err)
		}
		link := testenv.Cut(t, fmt.Sprintf("%s:%d", cfg.Host, cfg.Port))
		c, err := pgx.Connect(t.Context(), link.URL(direct))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(t.Context()) }()
		link.DropReplies()
		failed := make(chan error)
		go func() {
			_, err := c.PgConn().Exec(t.Context(), "INSERT INTO done VALUES (1)").ReadAll()
			failed <- err
		}()
		testenv.Eventually(t, 30*time.Second, func() error {
			if n := count(t, direct, "done"); n != 1 {
				return fmt.Errorf("%d rows", n)
			}
			return nil
		})
		link.Cut()
		if err := <-failed; err == nil {
			t.Fatal("the caller was told of success")
		}
	})
}

func TestEventually(t *testing.T) {
	t.Run("AsksAgainUntilItHolds", func(t *testing.T) {
		asked := 0
		testenv.Eventually(t, time.Minute, func() error {
			if asked++; asked < 5 {
				return errors.New("not yet")
			}
			return nil
		})
		if asked != 5 {
			t.Fatalf("asked %d times", asked)
		}
	})
	t.Run("FailsWithTheLastError", func(t *testing.T) {
		said := &recorder{TB: t}
		testenv.Eventually(said, time.Millisecond, func() error { return errors.New("still wrong") })
		if want := "not within 1ms: still wrong"; said.fatal != want {
			t.Fatalf("said %q, not %q", said.fatal, want)
		}
	})
}

// recorder keeps what a test would have failed with.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper()                        {}
func (r *recorder) Fatalf(format string, a ...any) { r.fatal = fmt.Sprintf(format, a...) }
