// The shim of the go runtime: compiled together with the function, it runs fn for every request.
//
// It speaks the handler protocol (docs/reference/handler-protocol.md) on descriptor 3, or over TCP
// on the port that TINYFAAS_LISTEN names. Each request has a goroutine; one more writes all replies
// that are ready in one write.
package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

const (
	tinyfaasVersion         = 1
	tinyfaasFd              = 3
	tinyfaasAtOnce          = 256
	tinyfaasFrameBytesMax   = 16 << 20
	tinyfaasPayloadBytesMax = 8 << 20
	tinyfaasHeadersBytesMax = 64 << 10
	tinyfaasMessageBytesMax = 64 << 10
	tinyfaasReadBytes       = 64 << 10
	tinyfaasHeaderBytes     = 16
	tinyfaasRequestBytes    = 32
	tinyfaasFlagFailed      = 1
	tinyfaasText            = "text/plain; charset=utf-8"
)

const (
	tinyfaasHello = iota + 1
	tinyfaasRequest
	tinyfaasReply
	tinyfaasCancel
	tinyfaasPing
	tinyfaasPong
	tinyfaasFailed
)

const tinyfaasSignatures = `write one of
	func fn(data string, headers map[string]string) (string, error)
	func fn(data string, headers map[string]string) (body string, status int, err error)
	func fn(data string, headers map[string]string) (body string, status int, replyHeaders map[string]string, err error)`

// tinyfaasFunction is the function in its widest shape. It is called with what fn has of it.
type tinyfaasFunction func(data string, headers map[string]string) (string, int, map[string]string, error)

// tinyfaasFind looks at the shape of the function; the error is for whoever deployed it.
func tinyfaasFind(function interface{}) (tinyfaasFunction, error) {
	switch function := function.(type) {
	case func(string, map[string]string) (string, error):
		return func(data string, headers map[string]string) (string, int, map[string]string, error) {
			body, err := function(data, headers)
			return body, 200, nil, err
		}, nil
	case func(string, map[string]string) (string, int, error):
		return func(data string, headers map[string]string) (string, int, map[string]string, error) {
			body, status, err := function(data, headers)
			return body, status, nil, err
		}, nil
	case func(string, map[string]string) (string, int, map[string]string, error):
		return function, nil
	default:
		return nil, fmt.Errorf("fn is a %T: %s", function, tinyfaasSignatures)
	}
}

// tinyfaasShim is the connection to the proxy.
type tinyfaasShim struct {
	conn     net.Conn
	function tinyfaasFunction

	mutex sync.Mutex
	// The ids without a reply.
	calls map[uint32]*tinyfaasCall
	// Frames that are ready; the writer takes them all at once.
	ready []byte
	wake  chan struct{}
}

type tinyfaasCall struct{ frame []byte }

func main() {
	conn, err := tinyfaasConnect()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the shim has no connection to the proxy:", err)
		os.Exit(1)
	}
	shim := &tinyfaasShim{
		conn:  conn,
		calls: make(map[uint32]*tinyfaasCall),
		wake:  make(chan struct{}, 1),
	}
	shim.function, err = tinyfaasFind(fn)
	if err != nil {
		shim.put(0, tinyfaasFailed, 0, 0, 0, "", err.Error())
		conn.Write(shim.ready)
		os.Exit(1)
	}
	go shim.write()
	shim.put(0, tinyfaasHello, 0, tinyfaasVersion, tinyfaasAtOnce, "", "")
	err = shim.read()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		fmt.Fprintln(os.Stderr, "the proxy broke the protocol:", err)
		os.Exit(1)
	}
}

func tinyfaasConnect() (net.Conn, error) {
	port, secret := os.Getenv("TINYFAAS_LISTEN"), os.Getenv("TINYFAAS_SECRET")
	os.Unsetenv("TINYFAAS_LISTEN")
	os.Unsetenv("TINYFAAS_SECRET")
	if port != "" {
		key, err := hex.DecodeString(secret)
		if err != nil || len(key) == 0 {
			return nil, errors.New("TINYFAAS_SECRET is no secret")
		}
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return nil, err
		}
		return tinyfaasAccept(listener, key)
	}
	// FileConn makes a descriptor of its own, which no child inherits.
	inherited := os.NewFile(tinyfaasFd, "proxy")
	defer inherited.Close()
	return net.FileConn(inherited)
}

// tinyfaasAccept takes the first connection that knows the secret: the proxy's. The other handlers of
// the function are on the same network, and one of them may be hostile.
func tinyfaasAccept(listener net.Listener, secret []byte) (net.Conn, error) {
	var mutex sync.Mutex
	var proxy net.Conn
	// One for each address: no other than the proxy's own can push the proxy out.
	waiting := make(map[string]net.Conn)
	proven := make(chan struct{})
	go func() {
		for {
			conn, err := listener.Accept()
			mutex.Lock()
			isOver := proxy != nil
			if err != nil || isOver {
				// Over, or such as descriptors are wanting, which somebody else holds.
				for addr, other := range waiting {
					other.Close()
					delete(waiting, addr)
				}
			}
			mutex.Unlock()
			if isOver && err == nil {
				conn.Close()
			}
			if isOver {
				return
			}
			if err != nil {
				continue
			}
			addr := conn.RemoteAddr().(*net.TCPAddr).IP.String()
			mutex.Lock()
			if before, is := waiting[addr]; is {
				before.Close()
			}
			waiting[addr] = conn
			mutex.Unlock()
			go func() {
				isProven := tinyfaasProve(conn, secret)
				mutex.Lock()
				defer mutex.Unlock()
				if waiting[addr] == conn {
					delete(waiting, addr)
				}
				if isProven && proxy == nil {
					proxy = conn
					close(proven)
				} else {
					conn.Close()
				}
			}()
		}
	}()
	<-proven
	listener.Close()
	return proxy, nil
}

// tinyfaasProve says whether whoever has connected knows the secret, and shows that this one does.
func tinyfaasProve(conn net.Conn, secret []byte) bool {
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return false
	}
	defer random.Close()
	var challenge [32]byte
	var shown [64]byte
	if _, err := io.ReadFull(random, challenge[:]); err != nil {
		return false
	}
	if _, err := conn.Write(challenge[:]); err != nil {
		return false
	}
	if _, err := io.ReadFull(conn, shown[:]); err != nil {
		return false
	}
	proof := func(who string) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(who))
		mac.Write(challenge[:])
		mac.Write(shown[:32])
		return mac.Sum(nil)
	}
	if !hmac.Equal(shown[32:], proof("caller")) {
		return false
	}
	_, err = conn.Write(proof("handler"))
	return err == nil
}

func (s *tinyfaasShim) read() error {
	reader := bufio.NewReaderSize(s.conn, tinyfaasReadBytes)
	var header [tinyfaasHeaderBytes]byte
	for {
		if _, err := io.ReadFull(reader, header[:]); err != nil {
			return err
		}
		length := int64(binary.BigEndian.Uint32(header[:])) + 4
		if length < tinyfaasHeaderBytes || length > tinyfaasFrameBytesMax {
			return fmt.Errorf("a frame of %d bytes", length)
		}
		frame := make([]byte, length)
		copy(frame, header[:])
		if _, err := io.ReadFull(reader, frame[tinyfaasHeaderBytes:]); err != nil {
			return err
		}
		if err := s.take(frame); err != nil {
			return err
		}
	}
}

func (s *tinyfaasShim) take(frame []byte) error {
	id := binary.BigEndian.Uint32(frame[4:])
	switch frame[8] {
	case tinyfaasRequest:
		headers, payload, err := tinyfaasParts(frame)
		if err != nil {
			return err
		}
		call := &tinyfaasCall{frame: frame}
		s.mutex.Lock()
		_, isTaken := s.calls[id]
		s.calls[id] = call
		s.mutex.Unlock()
		if isTaken {
			return fmt.Errorf("a second request %d", id)
		}
		go s.run(id, call, headers, payload)
	case tinyfaasCancel:
		// A goroutine can't be stopped; whatever it answers later is dropped.
		s.mutex.Lock()
		call := s.calls[id]
		s.mutex.Unlock()
		if call != nil {
			s.fail(id, call, "cancelled")
		}
	case tinyfaasPing:
		s.put(0, tinyfaasPong, 0, 0, 0, "", string(frame[tinyfaasHeaderBytes:]))
	default:
		return fmt.Errorf("a frame of kind %d", frame[8])
	}
	return nil
}

// tinyfaasParts finds the header block and the payload of a request.
func tinyfaasParts(frame []byte) (headers, payload []byte, err error) {
	if len(frame) < tinyfaasRequestBytes {
		return nil, nil, errors.New("a request that is cut short")
	}
	block := int64(binary.BigEndian.Uint32(frame[12:]))
	start := tinyfaasRequestBytes + int64(binary.BigEndian.Uint16(frame[10:])) +
		int64(binary.BigEndian.Uint16(frame[28:])) + int64(binary.BigEndian.Uint16(frame[30:]))
	if start+block > int64(len(frame)) {
		return nil, nil, errors.New("a request that contradicts itself")
	}
	return frame[start : start+block], frame[start+block:], nil
}

func tinyfaasHeaders(block []byte) map[string]string {
	headers := make(map[string]string)
	for len(block) >= 4 {
		nameEnd := 4 + int(binary.BigEndian.Uint16(block))
		valueEnd := nameEnd + int(binary.BigEndian.Uint16(block[2:]))
		if valueEnd > len(block) {
			break
		}
		name, value := string(block[4:nameEnd]), string(block[nameEnd:valueEnd])
		if before, isThere := headers[name]; isThere {
			value = before + ", " + value
		}
		headers[name] = value
		block = block[valueEnd:]
	}
	return headers
}

func (s *tinyfaasShim) run(id uint32, call *tinyfaasCall, block, payload []byte) {
	isDone := false
	defer func() {
		if isDone {
			return
		}
		// A panic, or runtime.Goexit, which leaves no value.
		value := recover()
		message := "panic: " + fmt.Sprint(value)
		if value == nil {
			message = "the function ended its goroutine"
		}
		fmt.Fprintf(os.Stderr, "%s\n%s", message, debug.Stack())
		s.fail(id, call, message)
	}()
	body, status, fields, err := s.function(string(payload), tinyfaasHeaders(block))
	isDone = true
	headers := ""
	if err == nil {
		headers, err = tinyfaasReplyHeaders(body, status, fields)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		s.fail(id, call, err.Error())
		return
	}
	if tinyfaasIsWithoutBody(status) {
		body = ""
	}
	s.answer(id, call, 0, uint16(status), headers, body)
}

// tinyfaasReplyHeaders is the header block of a reply, once all of the reply is within bounds.
func tinyfaasReplyHeaders(body string, status int, fields map[string]string) (string, error) {
	if len(body) > tinyfaasPayloadBytesMax {
		return "", fmt.Errorf("a reply may have %d bytes, got %d", tinyfaasPayloadBytesMax, len(body))
	}
	if status < 200 || status > 599 {
		return "", fmt.Errorf("the status of a reply must be between 200 and 599, got %d", status)
	}
	headers, isTyped := "", tinyfaasIsWithoutBody(status)
	for name, value := range fields {
		name = strings.ToLower(name)
		if !tinyfaasIsToken(name) {
			return "", fmt.Errorf("%q is no name of a header field", name)
		}
		value = strings.Trim(value, " \t")
		if strings.IndexFunc(value, tinyfaasIsControl) >= 0 {
			return "", fmt.Errorf("the header field %s holds a control character", name)
		}
		if len(headers)+len(name)+len(value) > tinyfaasHeadersBytesMax-256 {
			return "", fmt.Errorf("the header fields of the reply have more than %d bytes", tinyfaasHeadersBytesMax-256)
		}
		if name == "content-type" {
			if isTyped {
				continue
			}
			isTyped = true
		}
		headers += tinyfaasField(name, value)
	}
	switch {
	case isTyped:
		return headers, nil
	case utf8.ValidString(body):
		return headers + tinyfaasContentType, nil
	default:
		return headers + tinyfaasBytesType, nil
	}
}

func tinyfaasIsWithoutBody(status int) bool {
	return status == 204 || status == 205 || status == 304
}

func tinyfaasIsToken(name string) bool {
	isOther := func(c rune) bool {
		isWord := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		return !isWord && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}
	return name != "" && strings.IndexFunc(name, isOther) < 0
}

func tinyfaasIsControl(c rune) bool {
	return c < ' ' && c != '\t' || c == 0x7f
}

var (
	tinyfaasContentType = tinyfaasField("content-type", tinyfaasText)
	tinyfaasBytesType   = tinyfaasField("content-type", "application/octet-stream")
)

func tinyfaasField(name, value string) string {
	lengths := []byte{byte(len(name) >> 8), byte(len(name)), byte(len(value) >> 8), byte(len(value))}
	return string(lengths) + name + value
}

func (s *tinyfaasShim) fail(id uint32, call *tinyfaasCall, message string) {
	if len(message) > tinyfaasMessageBytesMax {
		message = message[:tinyfaasMessageBytesMax]
	}
	s.answer(id, call, tinyfaasFlagFailed, 500, "", strings.ToValidUTF8(message, ""))
}

// answer sends the reply of a call that has none yet.
func (s *tinyfaasShim) answer(id uint32, call *tinyfaasCall, flags byte, status uint16, headers, payload string) {
	s.mutex.Lock()
	isFirst := s.calls[id] == call
	if isFirst {
		delete(s.calls, id)
		s.append(id, tinyfaasReply, flags, status, uint32(len(headers)), headers, payload)
	}
	s.mutex.Unlock()
	if isFirst {
		s.signal()
	}
}

func (s *tinyfaasShim) put(id uint32, kind, flags byte, word uint16, headersLen uint32, headers, payload string) {
	s.mutex.Lock()
	s.append(id, kind, flags, word, headersLen, headers, payload)
	s.mutex.Unlock()
	s.signal()
}

// append adds a frame to those that are ready; the caller holds the mutex.
func (s *tinyfaasShim) append(id uint32, kind, flags byte, word uint16, headersLen uint32, headers, payload string) {
	var header [tinyfaasHeaderBytes]byte
	binary.BigEndian.PutUint32(header[0:], uint32(tinyfaasHeaderBytes-4+len(headers)+len(payload)))
	binary.BigEndian.PutUint32(header[4:], id)
	header[8], header[9] = kind, flags
	binary.BigEndian.PutUint16(header[10:], word)
	binary.BigEndian.PutUint32(header[12:], headersLen)
	s.ready = append(append(append(s.ready, header[:]...), headers...), payload...)
}

func (s *tinyfaasShim) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends what is ready whenever there is something.
func (s *tinyfaasShim) write() {
	var writing []byte
	for range s.wake {
		s.mutex.Lock()
		writing, s.ready = s.ready, writing[:0]
		s.mutex.Unlock()
		if _, err := s.conn.Write(writing); err != nil {
			os.Exit(0)
		}
		if cap(writing) > tinyfaasFrameBytesMax/16 {
			writing = nil
		}
	}
}
