// Who the kubelet is to the API server, and each to the other.

package main

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
)

// issueForNode returns the kubelet's kubeconfig: it is a member of system:nodes, which may do what the Node authorizer
// and NodeRestriction let it.
func (c *credentials) issueForNode(folder string) (string, error) {
	file := func(name string) string { return filepath.Join(folder, "credentials", name) }
	for name, cert := range map[string]*x509.Certificate{
		"kubelet":         memberCertificate("system:node:"+nodeName, "system:nodes"),
		"kubelet-client":  memberCertificate("kube-apiserver-kubelet-client", "system:masters"),
		"kubelet-serving": serverCertificate(nodeName, []string{nodeIP}),
	} {
		if err := c.certify(cert, file(name+".crt"), file(name+".key")); err != nil {
			return "", err
		}
	}
	proof := fmt.Sprintf("client-certificate: %s\n    client-key: %s", file("kubelet.crt"), file("kubelet.key"))
	return file("kubelet.kubeconfig"), c.writeKubeconfigFor(file("kubelet.kubeconfig"), proof)
}

func memberCertificate(name, group string) *x509.Certificate {
	cert := certificate(name)
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert.Subject.Organization = []string{group}
	return cert
}
