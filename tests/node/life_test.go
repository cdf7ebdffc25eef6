// How a node comes and goes. Each of these has a node of its own, or none.

package node

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestExitCodeIsPassedOnAndNothingIsLeft(t *testing.T) {
	r := start(t, `kubectl run p --image=hello:1 -- serve :8080 >&2
		kubectl wait --for=condition=Ready pod/p --timeout=60s >&2
		sleep 1000 & echo $TIDINGS_CONTROLPLANE; exit 7`)
	folder := r.folder()
	r.expect(7)
	gone(t, folder)
}

func TestKilledProcessOfOursLeavesNothing(t *testing.T) {
	for level, name := range []string{"guard", "process 1", "supervisor"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, `kubectl run p --image=hello:1 -- serve :8080 >&2
				kubectl wait --for=condition=Ready pod/p --timeout=60s >&2
				echo $TIDINGS_CONTROLPLANE; sleep 1000`)
			folder := r.folder()
			pids := append([]int{r.cmd.Process.Pid}, below(r.cmd.Process.Pid)...)
			syscall.Kill(pids[level], syscall.SIGKILL)
			r.expect(137)
			gone(t, folder, pids...)
		})
	}
}

func TestKilledProcessGroupLeavesNothing(t *testing.T) {
	r := command(t, "./run", "--", "bash", "-c", "echo $TIDINGS_CONTROLPLANE; sleep 1000; true")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	needNode(t)
	r.begin()
	folder := r.folder()
	pids := below(r.cmd.Process.Pid)
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	r.expect(137)
	gone(t, folder, pids...)
}

func TestInterruptEndsTheCommandAndTheNode(t *testing.T) {
	r := start(t, "echo $TIDINGS_CONTROLPLANE; sleep 1000; true")
	folder := r.folder()
	r.cmd.Process.Signal(syscall.SIGINT)
	r.expect(130)
	gone(t, folder)
}

func TestFilesOfALocalVolumeAreNotRemovedWithTheNode(t *testing.T) {
	kept := t.TempDir()
	r := start(t, `sed "s|FOLDER|`+kept+`|; s|NAMESPACE|default|" testdata/volume.yaml | kubectl apply -f -
		kubectl wait --for=condition=Ready pod/writer --timeout=60s
		grep "$TIDINGS_NODE_DISK.*kubernetes.io~local-volume" /proc/mounts && kill -9 $PPID`)
	r.expect(137)
	if out, err := exec.Command("grep", "remembered", kept+"/note").CombinedOutput(); err != nil {
		t.Errorf("the file is gone: %s", out)
	}
}

func TestComponentThatDiesEndsTheRunAndIsNamed(t *testing.T) {
	r := start(t, "kill -9 $(cat $TIDINGS_CONTROLPLANE/kubelet.pid); sleep 1000")
	r.expect(125)
	if said := r.stderr.String(); !strings.Contains(said, "kubelet ended (signal: killed); its log ends with:") {
		t.Errorf("stderr does not say what happened: %s", said)
	}
}

func TestTwoNodesShareNothing(t *testing.T) {
	r := start(t, `set -e
		kubectl run outer --image=hello:1 -- serve :8080
		outer=$KUBECONFIG ./run --image "$IMAGE" -- bash -c 'set -e
			[ $outer != $KUBECONFIG ]
			kubectl run inner --image=hello:1 -- serve :8080
			kubectl wait --for=condition=Ready pod/inner --timeout=60s'
		kubectl wait --for=condition=Ready pod/outer --timeout=60s
		fails kubectl get pod inner`)
	r.expect(0)
}

func TestFullDiskEvictsAPodAndAnEmptiedOneTakesItAgain(t *testing.T) {
	r := start(t, `set -e
		kubectl apply -f testdata/glutton.yaml
		kubectl rollout status deployment/glutton --timeout=60s
		evicted=$(kubectl get pod -l app=glutton -o name)
		fallocate -l 450M "$TIDINGS_NODE_DISK/filler"
		kubectl wait --for=condition=DiskPressure node/node --timeout=60s
		kubectl wait --for=condition=DisruptionTarget $evicted --timeout=60s
		kubectl wait --for=condition=Available=false deployment/glutton --timeout=60s
		until kubectl get pods -l app=glutton --field-selector=status.phase=Pending -o name | grep pod/; do sleep 0.1; done
		rm "$TIDINGS_NODE_DISK/filler"
		kubectl wait --for=condition=DiskPressure=false node/node --timeout=60s
		kubectl rollout status deployment/glutton --timeout=60s`)
	r.expect(0)
}

func TestMachineThatCannotIsSkippedAndNotPassed(t *testing.T) {
	r := command(t, "./run", "--", "true")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	r.begin()
	r.expect(77)
	if said := r.stderr.String(); said != "skipped: no node here: this user is not root\n" {
		t.Errorf("stderr says: %s", said)
	}
}
