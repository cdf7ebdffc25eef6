// The client that asks whether a component is ready.

package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"time"
)

// client asks over HTTP as the admin.
type client struct {
	http  *http.Client
	token string
}

// newClient makes a connection for every question, as an old one may lead to a process that was killed.
func newClient(c *credentials) *client {
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(c.authority)
	return &client{
		token: c.adminToken,
		http: &http.Client{
			Timeout:   2 * time.Second,
			Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted}},
		},
	}
}

// answers tells whether a GET is answered with success.
func (c *client) answers(url string) bool {
	return c.get(url) != nil
}

// get is the answer to a GET, or nil without success.
func (c *client) get(url string) []byte {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil
	}
	return content
}
