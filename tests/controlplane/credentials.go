// Keys, certificates and the admin's token of one control plane. All are made afresh and live as long as its folder.

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// credentials are the files that components are given, and what our own client needs.
type credentials struct {
	caCert, caKey           string
	servingCert, servingKey string
	serviceAccountKey       string
	tokens                  string
	kubeconfig              string

	apiserver  string   // its URL
	addresses  []string // where it serves
	authority  []byte   // the content of caCert
	adminToken string

	signer *ecdsa.PrivateKey // the key in caKey
	ca     *x509.Certificate
}

// issue writes them for an API server at a URL, which serves at these addresses.
func issue(folder, apiserver string, addresses []string) (*credentials, error) {
	file := func(name string) string { return filepath.Join(folder, "credentials", name) }
	c := &credentials{
		caCert:            file("ca.crt"),
		caKey:             file("ca.key"),
		servingCert:       file("apiserver.crt"),
		servingKey:        file("apiserver.key"),
		serviceAccountKey: file("service-account.key"),
		tokens:            file("tokens.csv"),
		adminToken:        rand.Text(),
		kubeconfig:        filepath.Join(folder, "kubeconfig"),
		apiserver:         apiserver,
		addresses:         addresses,
	}
	if err := os.Mkdir(file(""), 0o700); err != nil {
		return nil, err
	}
	for _, write := range []func() error{c.writeCertificates, c.writeServiceAccountKey, c.writeTokens, c.writeKubeconfig} {
		if err := write(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *credentials) writeCertificates() error {
	var err error
	if c.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	c.ca = authorityCertificate()
	if err := sign(c.ca, c.ca, c.signer, c.signer, c.caCert, c.caKey); err != nil {
		return err
	}
	if c.authority, err = os.ReadFile(c.caCert); err != nil {
		return err
	}
	return c.certify(servingCertificate(c.addresses), c.servingCert, c.servingKey)
}

// certify writes a certificate of our authority and a new key for it.
func (c *credentials) certify(cert *x509.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return sign(cert, c.ca, key, c.signer, certFile, keyFile)
}

func authorityCertificate() *x509.Certificate {
	cert := certificate("tidings-controlplane")
	cert.IsCA, cert.BasicConstraintsValid = true, true
	cert.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	return cert
}

func servingCertificate(addresses []string) *x509.Certificate {
	cert := serverCertificate("kube-apiserver", append(addresses, serviceIP))
	cert.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local"}
	return cert
}

func serverCertificate(name string, addresses []string) *x509.Certificate {
	cert := certificate(name)
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, address := range addresses {
		cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(address))
	}
	return cert
}

func certificate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
}

// sign writes a certificate for key, signed by the parent's key, and the key itself.
func sign(cert, parent *x509.Certificate, key, parentKey crypto.Signer, certFile, keyFile string) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		return err
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(keyFile, key)
}

// writeServiceAccountKey makes an RSA key, as most clusters have, so that clients see tokens of the usual algorithm.
func (c *credentials) writeServiceAccountKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return writeKey(c.serviceAccountKey, key)
}

func (c *credentials) writeTokens() error {
	return os.WriteFile(c.tokens, fmt.Appendf(nil, "%s,admin,admin,system:masters\n", c.adminToken), 0o600)
}

func (c *credentials) writeKubeconfig() error {
	return c.writeKubeconfigFor(c.kubeconfig, "token: "+c.adminToken)
}

// writeKubeconfigFor takes what proves who the user is, as the lines of a kubeconfig.
func (c *credentials) writeKubeconfigFor(file, proof string) error {
	authority := base64.StdEncoding.EncodeToString(c.authority)
	return os.WriteFile(file, fmt.Appendf(nil, kubeconfig, c.apiserver, authority, proof), 0o600)
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: controlplane
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: admin
  user:
    %s
contexts:
- name: controlplane
  context: {cluster: controlplane, user: admin}
current-context: controlplane
`

func writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(file, "PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
