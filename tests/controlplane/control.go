// The way to ask a running supervisor for something: a word through a socket in its folder, and an answer back.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// The socket is named relative to the folder, because a socket's whole path may have only about a hundred characters.
const socket = "control.sock"

const granted = "ok"

// request is a word that wants an answer: granted, or why not.
type request struct {
	word  string
	reply chan string
}

// listen passes requests on, one after the other, for as long as we live.
func listen(folder string, requests chan<- request) error {
	listener, err := listenIn(folder)
	if err != nil {
		return err
	}
	go func() {
		for {
			if conn, err := listener.Accept(); err == nil {
				answer(conn, requests)
			}
		}
	}()
	return nil
}

func listenIn(folder string) (net.Listener, error) {
	workplace, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(folder); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	return listener, errors.Join(err, os.Chdir(workplace))
}

func answer(conn net.Conn, requests chan<- request) {
	defer conn.Close()
	word, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	r := request{word: strings.TrimSpace(word), reply: make(chan string, 1)}
	requests <- r
	fmt.Fprintln(conn, <-r.reply)
}

// ask sends a word to the supervisor of a folder. It leaves us in that folder.
func ask(folder, word string) error {
	if err := os.Chdir(folder); err != nil {
		return err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintln(conn, word)
	reply, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	switch line := strings.TrimSpace(string(reply)); line {
	case granted:
		return nil
	case "":
		return errors.New("the control plane ended meanwhile")
	default:
		return errors.New(line)
	}
}

// askApiserver is `apiserver WORD`.
func askApiserver(word string) (int, error) {
	folder := os.Getenv("TIDINGS_CONTROLPLANE")
	if folder == "" {
		var err error
		if folder, err = folderThatIsUp(); err != nil {
			return exitFailed, err
		}
	}
	if err := ask(filepath.Clean(folder), word); err != nil {
		return 1, fmt.Errorf("apiserver %s: %w", word, err)
	}
	return 0, nil
}
