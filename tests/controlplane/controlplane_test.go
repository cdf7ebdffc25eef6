// What a user of these scripts would notice, on real control planes. Each test that needs one takes about five seconds.

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExitCodeIsPassedOnAndNothingIsLeft(t *testing.T) {
	r := start(t, "echo $TIDINGS_CONTROLPLANE; sleep 1000 & kubectl get namespace default && exit 7")
	folder := r.line()
	r.expect(7)
	gone(t, folder)
}

func TestUnknownCommandIsNotFound(t *testing.T) {
	r := startCommand(t, nil, "./run", "--", "no-such-command")
	r.expect(127)
}

func TestInterruptEndsTheCommandAndEverythingElse(t *testing.T) {
	r := start(t, "echo $TIDINGS_CONTROLPLANE; sleep 1000; true")
	folder := r.line()
	r.cmd.Process.Signal(syscall.SIGINT)
	r.expect(130)
	gone(t, folder)
}

func TestCommandMayCleanUpWhenItIsTold(t *testing.T) {
	r := start(t, "trap 'kubectl get namespace default -o name; exit 3' TERM; sleep 1000 & echo ready; wait")
	r.line()
	r.cmd.Process.Signal(syscall.SIGTERM)
	if line := r.line(); line != "namespace/default" {
		t.Errorf("the API server did not serve the trap: %q", line)
	}
	r.expect(3)
}

func TestKilledGuardLeavesNothing(t *testing.T) {
	r := start(t, "echo $TIDINGS_CONTROLPLANE; sleep 1000; true")
	folder := r.line()
	pids := below(r.cmd.Process.Pid)
	r.cmd.Process.Kill()
	r.cmd.Wait()
	gone(t, folder, pids...)
}

func TestKilledSupervisorLeavesNothing(t *testing.T) {
	r := start(t, "echo $TIDINGS_CONTROLPLANE; sleep 1000; true")
	folder := r.line()
	pids := below(r.cmd.Process.Pid)
	syscall.Kill(pids[0], syscall.SIGKILL)
	r.expect(137)
	gone(t, folder, pids...)
}

func TestComponentThatDiesEndsTheRunAndIsNamed(t *testing.T) {
	r := start(t, "kill -9 $(cat $TIDINGS_CONTROLPLANE/etcd.pid); sleep 1000")
	r.expect(exitFailed)
	if said := r.stderr.String(); !strings.Contains(said, "etcd ended (signal: killed); its log ends with:") {
		t.Errorf("stderr does not say what happened: %s", said)
	}
}

func TestApiserverGoesAndComesBackWithItsData(t *testing.T) {
	r := start(t, `set -e
		pid() { cat $TIDINGS_CONTROLPLANE/apiserver.pid; }
		kubectl create configmap kept
		before=$(pid)

		./apiserver pause; ./apiserver pause
		fails kubectl --request-timeout=1s get configmap kept
		fails ./apiserver start
		./apiserver resume; ./apiserver resume
		kubectl get configmap kept
		[ $before = $(pid) ]

		./apiserver stop; ./apiserver stop
		[ ! -e $TIDINGS_CONTROLPLANE/apiserver.pid ]
		kubectl get configmap kept 2>&1 | grep refused
		fails ./apiserver pause
		fails ./apiserver resume
		./apiserver start; ./apiserver start
		kubectl get configmap kept
		[ $before != $(pid) ]
		kubectl create namespace lively
		until kubectl -n lively get serviceaccount default; do sleep 0.1; done`)
	r.expect(0)
}

func TestServiceAccountHasNoRightsUntilTheyAreGiven(t *testing.T) {
	r := start(t, `set -e
		token=$(kubectl create token default)
		server=$(kubectl config view -o jsonpath='{.clusters[0].cluster.server}')
		kubectl config view --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' |
			base64 -d >$TIDINGS_CONTROLPLANE/authority
		as_account() {
			KUBECONFIG= kubectl --server=$server --certificate-authority=$TIDINGS_CONTROLPLANE/authority --token=$token "$@"
		}
		as_account get configmaps 2>&1 | grep Forbidden
		kubectl create rolebinding reader --clusterrole=view --serviceaccount=default:default
		until as_account get configmaps; do sleep 0.1; done`)
	r.expect(0)
}

func TestAdmissionPoliciesAndControllersAreThere(t *testing.T) {
	r := start(t, `set -e
		kubectl api-resources | grep mutatingadmissionpolicies
		kubectl create deployment d --image=none --replicas=2
		kubectl wait --for=jsonpath='{.status.replicas}'=2 deployment/d --timeout=20s`)
	r.expect(0)
}

func TestTwoControlPlanesShareNothing(t *testing.T) {
	r := start(t, `set -e
		kubectl create namespace outer
		outer=$KUBECONFIG ./run -- bash -c '
			[ $outer != $KUBECONFIG ] && ! kubectl get namespace outer && kubectl create namespace inner'
		fails kubectl get namespace inner
		kubectl get namespace outer`)
	r.expect(0)
}

func TestUpStaysUntilDown(t *testing.T) {
	cache := "TIDINGS_CONTROLPLANE_CACHE=" + copyOfCache(t)
	t.Cleanup(func() { startCommand(t, []string{cache}, "./down").expect(0) })
	r := startCommand(t, []string{cache}, "bash", "-c", `set -e
		first=$(./up); second=$(./up)
		[ "$first" = "$second" ]
		./apiserver stop; ./apiserver start
		eval "$first"
		kubectl get namespace default >&2
		echo $TIDINGS_CONTROLPLANE
		./down`)
	folder := r.line()
	r.expect(0)
	gone(t, folder)
}

func TestUpAfterAKillStartsAnew(t *testing.T) {
	cache := "TIDINGS_CONTROLPLANE_CACHE=" + copyOfCache(t)
	t.Cleanup(func() { startCommand(t, []string{cache}, "./down").expect(0) })
	r := startCommand(t, []string{cache}, "bash", "-c", `set -e
		eval "$(./up)"
		kill -9 $(cat $TIDINGS_CONTROLPLANE/guard.pid)
		while [ -e $TIDINGS_CONTROLPLANE ]; do sleep 0.1; done
		eval "$(./up)"
		kubectl get namespace default`)
	r.expect(0)
}

func TestOwnBinariesAreUsedInPlaceOfOurs(t *testing.T) {
	assets := t.TempDir()
	script := "#!/bin/sh\ntouch " + assets + "/used\nexec " + filepath.Join(built(t), "components") + " etcd \"$@\"\n"
	if err := os.WriteFile(filepath.Join(assets, "etcd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := startCommand(t, []string{"KUBEBUILDER_ASSETS=" + assets}, "./run", "--", "kubectl", "get", "namespaces")
	r.expect(0)
	if _, err := os.Stat(filepath.Join(assets, "used")); err != nil {
		t.Error("etcd of KUBEBUILDER_ASSETS was not run")
	}
}

func TestMissingGoIsSaid(t *testing.T) {
	path := t.TempDir()
	for _, tool := range []string{"bash", "dirname", "awk"} {
		found, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		os.Symlink(found, filepath.Join(path, tool))
	}
	r := startCommand(t, []string{"PATH=" + path}, "./run", "--", "true")
	r.expect(2)
	if said := r.stderr.String(); !strings.Contains(said, "there is no 'go' in PATH") {
		t.Errorf("stderr does not say it: %s", said)
	}
}

func TestReservedPortRefusesUntilAServerSharesIt(t *testing.T) {
	port, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	again, err := reservePort()
	if err != nil || again == port {
		t.Errorf("the port was given away: %d, %v", again, err)
	}
	if (&client{http: newClient(&credentials{}).http}).answers(fmt.Sprintf("http://127.0.0.1:%d", port)) {
		t.Error("something answers on a port that nobody listens on")
	}
}

func TestStatOfAProgramWithAStrangeName(t *testing.T) {
	state, parent, ok := parseStat([]byte("42 (a) b (c) T 7 42 42 0"))
	if !ok || state != "T" || parent != 7 {
		t.Errorf("read %q, %d, %t", state, parent, ok)
	}
	if _, _, ok := parseStat(nil); ok {
		t.Error("an empty file was read")
	}
}

// running is a started script of this folder.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr bytes.Buffer
}

// start runs a shell script in a control plane. "fails COMMAND…" holds in it when the command fails.
func start(t *testing.T, script string) *running {
	t.Helper()
	return startCommand(t, nil, "./run", "--", "bash", "-c", `fails() { if "$@"; then return 1; fi; }; `+script)
}

func startCommand(t *testing.T, env []string, name string, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(name, args...)}
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stderr = &r.stderr
	// Background processes of a script may keep these open.
	r.cmd.WaitDelay = time.Second
	r.stdout, _ = r.cmd.StdoutPipe()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// line is the next one that it prints.
func (r *running) line() string {
	r.t.Helper()
	var line []byte
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		if _, err := r.stdout.Read(one); err != nil {
			r.cmd.Wait()
			r.t.Fatalf("no line: %v; stderr: %s", err, &r.stderr)
		}
		if one[0] == '\n' {
			return string(line)
		}
	}
}

func (r *running) expect(code int) {
	r.t.Helper()
	printed, _ := io.ReadAll(r.stdout)
	r.cmd.Wait()
	if got := exitCode(r.cmd.ProcessState.Sys().(syscall.WaitStatus)); got != code {
		r.t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, code, printed, &r.stderr)
	}
}

// below lists the processes under a guard, the supervisor first.
func below(guard int) []int {
	return descendants(guard)
}

// gone waits until neither folder nor processes are left, among them those that were started with the folder's name.
func gone(t *testing.T, folder string, pids ...int) {
	t.Helper()
	var left []string
	for range 100 {
		left = nil
		if _, err := os.Stat(folder); err == nil {
			left = append(left, folder)
		}
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				left = append(left, strconv.Itoa(pid))
			}
		}
		environments, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range environments {
			if environment, _ := os.ReadFile(file); bytes.Contains(environment, []byte(folder)) {
				left = append(left, file)
			}
		}
		if left == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("still there: %v", left)
}

// built is the folder of the programs.
func built(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("./build").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// copyOfCache is a cache with the same programs, so that a developer's own `up` is left alone.
func copyOfCache(t *testing.T) string {
	t.Helper()
	programs, cache := built(t), t.TempDir()
	folder := filepath.Join(cache, filepath.Base(programs))
	os.Mkdir(folder, 0o700)
	supervisor, err := os.ReadFile(filepath.Join(programs, "controlplane"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "controlplane"), supervisor, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Symlink(filepath.Join(programs, "components"), filepath.Join(folder, "components"))
	return cache
}
