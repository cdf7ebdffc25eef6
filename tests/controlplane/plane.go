// What a control plane is made of: its components, and the flags of each.

package main

import (
	"fmt"
	"path/filepath"
)

// Cluster addresses. Nothing routes them on this machine; the API server hands them out to Services all the same.
const (
	serviceRange = "10.0.0.0/24"
	serviceIP    = "10.0.0.1"
)

// plane is one control plane. The order in which its components start is etcd, API server, controllers.
type plane struct {
	folder                       string
	credentials                  *credentials
	etcdURL                      string
	etcd, apiserver, controllers *component
	node                         *node // nil where none is wanted
}

// newPlane reserves ports, writes credentials and decides the flags. It starts nothing.
func newPlane(folder string, o options) (*plane, error) {
	if err := linkPrograms(folder); err != nil {
		return nil, err
	}
	var ports [3]int
	for i := range ports {
		port, err := reservePort()
		if err != nil {
			return nil, fmt.Errorf("reserve a port: %w", err)
		}
		ports[i] = port
	}
	etcdURL, peerURL := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	serve := loopback
	if o.node.wanted() {
		serve = onNode
	}
	keys, err := issue(folder, fmt.Sprintf("https://127.0.0.1:%d", ports[2]), serve.addresses)
	if err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	p := &plane{
		folder:      folder,
		credentials: keys,
		etcdURL:     etcdURL,
		etcd:        newComponent(folder, "etcd", "etcd", etcdFlags(filepath.Join(folder, "etcd"), etcdURL, peerURL, o.fsync)),
		apiserver:   newComponent(folder, "apiserver", "kube-apiserver", append(apiserverFlags(folder, etcdURL, ports[2], keys), serve.flags(folder)...)),
		controllers: newComponent(folder, "controller-manager", "kube-controller-manager", controllerFlags(keys)),
	}
	if o.node.wanted() {
		p.node, err = newNode(folder, o.node, keys)
	}
	return p, err
}

func (p *plane) components() []*component {
	all := []*component{p.controllers, p.apiserver, p.etcd}
	if p.node != nil {
		all = append(p.node.components(), all...)
	}
	return all
}

// followers go and come with the API server. A node stays, as it does when it loses a real one.
func (p *plane) followers() []*component {
	if p.node != nil {
		return []*component{p.controllers, p.node.scheduler}
	}
	return []*component{p.controllers}
}

func etcdFlags(data, clients, peers string, fsync bool) []string {
	return []string{
		"--name=tidings",
		"--data-dir=" + data,
		"--listen-client-urls=" + clients,
		"--advertise-client-urls=" + clients,
		"--listen-peer-urls=" + peers,
		"--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=tidings=" + peers,
		"--socket-reuse-port",
		fmt.Sprintf("--unsafe-no-fsync=%t", !fsync),
	}
}

func apiserverFlags(folder, etcd string, port int, c *credentials) []string {
	return []string{
		"--etcd-servers=" + etcd,
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing",
		"--cert-dir=" + filepath.Join(folder, "credentials"),
		"--tls-cert-file=" + c.servingCert,
		"--tls-private-key-file=" + c.servingKey,
		"--client-ca-file=" + c.caCert,
		"--token-auth-file=" + c.tokens,
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.serviceAccountKey,
		"--service-account-signing-key-file=" + c.serviceAccountKey,
		"--service-cluster-ip-range=" + serviceRange,
		"--allow-privileged",
	}
}

func controllerFlags(c *credentials) []string {
	return []string{
		"--kubeconfig=" + c.kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--controllers=*",
		"--root-ca-file=" + c.caCert,
		"--cluster-signing-cert-file=" + c.caCert,
		"--cluster-signing-key-file=" + c.caKey,
		"--service-account-private-key-file=" + c.serviceAccountKey,
		// The default limits are made for a cluster that others use too; here they would only slow tests.
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--concurrent-namespace-syncs=20",
		"--endpointslice-updates-batch-period=0",
	}
}

// audience is whom the API server serves.
type audience struct {
	addresses []string
	flags     func(folder string) []string
}

var loopback = audience{[]string{"127.0.0.1"}, func(string) []string {
	return []string{
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		// A loopback address is refused as the endpoint of the Service "kubernetes".
		"--endpoint-reconciler-type=none",
	}
}}

// onNode is for pods too, and for a kubelet that proves who it is, as the API server does to it.
var onNode = audience{[]string{"127.0.0.1", nodeIP}, func(folder string) []string {
	file := func(name string) string { return filepath.Join(folder, "credentials", name) }
	return []string{
		"--bind-address=0.0.0.0",
		"--advertise-address=" + nodeIP,
		"--enable-admission-plugins=NodeRestriction",
		"--kubelet-certificate-authority=" + file("ca.crt"),
		"--kubelet-client-certificate=" + file("kubelet-client.crt"),
		"--kubelet-client-key=" + file("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
	}
}}
