package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// conn is one kept-alive connection. It reads just enough of HTTP/1.1 to find the next
// answer: net/http's client would cost the machine more than many a handler.
type conn struct {
	address string
	c       net.Conn
	in      *bufio.Reader
}

// answerWithin bounds one answer: what takes longer is counted as broken.
const answerWithin = 30 * time.Second

var errAnswer = errors.New("the answer is no HTTP/1.1 that this client reads")

// do sends one request and returns the status of its answer. After an error the next
// one has a connection of its own.
func (c *conn) do(ctx context.Context, request []byte) (status int, err error) {
	if c.c == nil {
		if err := c.dial(ctx); err != nil {
			return 0, err
		}
	}
	keep := false
	defer func() {
		if err != nil || !keep {
			c.close()
		}
	}()
	if err := c.c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return 0, err
	}
	if _, err := c.c.Write(request); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	status, keep, err = c.read()
	return status, err
}

func (c *conn) dial(ctx context.Context) error {
	d := net.Dialer{Timeout: answerWithin}
	next, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return err
	}
	c.c, c.in = next, bufio.NewReaderSize(next, 4096)
	return nil
}

func (c *conn) close() {
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}

// read takes one answer off the connection; keep says whether another may follow.
func (c *conn) read() (status int, keep bool, err error) {
	line, err := c.line()
	if err != nil {
		return 0, false, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, false, errAnswer
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, errAnswer
	}
	length, keep, err := c.headers()
	switch {
	case err != nil:
		return 0, false, err
	case length < 0:
		return status, keep, c.chunks()
	}
	_, err = c.in.Discard(length)
	return status, keep, err
}

// headers returns the body's length, -1 when it comes in chunks.
func (c *conn) headers() (length int, keep bool, err error) {
	keep = true
	for {
		line, err := c.line()
		if err != nil || len(line) == 0 {
			return length, keep, err
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, false, errAnswer
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length = -1
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			keep = false
		}
	}
}

func (c *conn) chunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return errAnswer
		}
		if _, err := c.in.Discard(int(size) + 2); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

func (c *conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
