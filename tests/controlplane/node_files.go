// The configuration files of a node.

package main

import (
	"os"
	"path/filepath"
	"strings"
)

// nodeFiles is what they speak of.
type nodeFiles struct {
	folder, authority, kubeconfig, plugins string
}

func (f nodeFiles) path(name string) string { return filepath.Join(f.folder, "node", name) }

// write fills in what is written in capitals.
func (f nodeFiles) write() error {
	values := strings.NewReplacer(
		"AUTHORITY", f.authority, "KUBECONFIG", f.kubeconfig, "PLUGINS", f.plugins, "DISK", diskFolder(f.folder),
		"IMAGES", imageFolder(f.folder), "CGROUP", cgroupName(f.folder), "NODE_FOLDER", f.path(""),
		"NODE_IP", nodeIP, "POD_CIDR", podCIDR, "DNS_IP", dnsIP, "PAUSE", pauseImage,
		"SERVING", filepath.Join(f.folder, "credentials", "kubelet-serving"),
	)
	for name, content := range map[string]string{
		"containerd.toml":   containerdToml,
		"kubelet.yaml":      kubeletYAML,
		"kube-proxy.yaml":   proxyYAML,
		"Corefile":          corefile,
		"cni/pods.conflist": cniJSON,
		"kube-dns.yaml":     dnsYAML,
		"no-resolv.conf":    "",
	} {
		if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(f.path(name), []byte(values.Replace(content)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(f.path("load"), []byte(values.Replace(loadScript)), 0o755)
}

// loadScript needs neither this tree nor Go.
const loadScript = `#!/bin/sh
# Gives images to the node: load ARCHIVE…
exec 'NODE_FOLDER/../controlplane' load "$@"
`

// pauseImage is the name in the archive that tests/node/build makes.
const pauseImage = "docker.io/library/tidings-pause:1"

// Without restrict_oom_score_adj a machine that lacks CAP_SYS_RESOURCE cannot start a container. The plugin "opt" would
// make a folder in /opt.
const containerdToml = `version = 2
root = "IMAGES"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "PLUGINS"
    conf_dir = "NODE_FOLDER/cni"
`

// Only the disk can come under pressure: what the machine itself has free is none of a test's business.
const kubeletYAML = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: NODE_IP
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: AUTHORITY}
authorization: {mode: Webhook}
tlsCertFile: SERVING.crt
tlsPrivateKeyFile: SERVING.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /CGROUP
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
oomScoreAdj: 0
clusterDNS: [DNS_IP]
clusterDomain: cluster.local
resolvConf: NODE_FOLDER/no-resolv.conf
podLogsDir: DISK/pod-logs
volumePluginDir: NODE_FOLDER/volume-plugins
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {nodefs.available: 25%}
evictionPressureTransitionPeriod: 5s
nodeStatusUpdateFrequency: 2s
syncFrequency: 10s
`

// Zeros leave alone what only the machine itself may set.
const proxyYAML = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: KUBECONFIG}
clusterCIDR: POD_CIDR
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
`

// A name of nowhere is unknown at once.
const corefile = `. {
  bind NODE_IP
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig KUBECONFIG
    pods insecure
  }
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
`

// With "ptp" every packet of a pod goes through the node, where Services are turned into pods and back; with "bridge"
// an answer to a neighbour would not, unless the machine has the module br_netfilter.
const cniJSON = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "POD_CIDR"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}}]
}
`

const dnsYAML = `apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: DNS_IP
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints:
- addresses: [NODE_IP]
ports:
- {name: dns, port: 53, protocol: UDP}
- {name: dns-tcp, port: 53, protocol: TCP}
`
