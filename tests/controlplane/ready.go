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
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}
