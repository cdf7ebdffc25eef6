// Hello is the program of the image that the node's own tests run.
//
//	hello serve ADDRESS     greets with its pod's name, and keeps a note of every call: /crash ends it with code 3
//	hello get URL           prints what a GET is answered with
//	hello pods              prints the answer of the API server, asked with the pod's own token, for its namespace's pods
//	hello write FILE TEXT   and
//	hello read FILE         work on a file
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	log.SetFlags(0)
	verb, args := os.Args[1], os.Args[2:]
	var err error
	switch verb {
	case "serve":
		err = serve(args[0])
	case "get":
		err = get(http.DefaultClient, args[0], "")
	case "pods":
		err = pods()
	case "write":
		err = os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "read":
		var content []byte
		content, err = os.ReadFile(args[0])
		fmt.Println(string(content))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve ends well when it is told to.
func serve(address string) error {
	http.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		log.Println("asked for", r.URL.Path)
		fmt.Fprintln(w, "hello from", os.Getenv("POD_NAME"))
	})
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: address}
	go func() {
		<-told.Done()
		log.Println("told to end")
		_ = server.Shutdown(context.Background())
	}()
	log.Println("serving at", address)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func get(client *http.Client, url, token string) error {
	client.Timeout = 5 * time.Second
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// pods uses nothing but what every pod is given.
func pods() error {
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile(account + "namespace")
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return get(client, fmt.Sprintf("https://%s/api/v1/namespaces/%s/pods", server, namespace), string(token))
}
