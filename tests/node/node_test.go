// What a command beside a node would notice. These share one node; each has a namespace of its own.

package node

import "testing"

func TestPodsOfADeploymentRunLockedDownWithANativeSidecar(t *testing.T) {
	onNode(t, `
		kubectl apply -f testdata/hello.yaml
		kubectl rollout status deployment/hello --timeout=60s
		kubectl get pods -l app=hello --no-headers | tee pods
		[ $(grep -c '2/2 *Running *0' pods) = 2 ]
		kubectl get nodes -o wide | grep "node *Ready.*$TIDINGS_NODE_IP.*containerd"`)
}

func TestServiceIsReachedByAddressAndByName(t *testing.T) {
	onNode(t, hello+`
		address=$(kubectl get service hello -o jsonpath='{.spec.clusterIP}')
		pod=$(kubectl get pod -l app=hello -o jsonpath='{.items[0].status.podIP}')
		for host in $address $pod:8080 hello.$NAMESPACE.svc hello.$NAMESPACE.svc.cluster.local; do
			$HELLO get http://$host | grep 'hello from hello-'
			kubectl exec client -- /hello get http://$host | grep 'hello from hello-'
		done
		kubectl exec client -- /hello get http://hello | grep 'hello from hello-'
		fails kubectl exec client -- /hello get http://nobody.example 2>&1 | grep 'no such host'`)
}

func TestPodReachesItselfThroughItsService(t *testing.T) {
	onNode(t, hello+`
		kubectl scale deployment/hello --replicas=1
		until [ "$(kubectl get pods -l app=hello --no-headers | wc -l)" = 1 ]; do sleep 0.1; done
		kubectl exec deployment/hello -- /hello get http://hello | grep 'hello from hello-'`)
}

func TestLogsExecAndPortForward(t *testing.T) {
	onNode(t, hello+`
		kubectl logs deployment/hello -c hello | grep 'serving at :8080'
		kubectl logs deployment/hello -c beside | grep 'serving at 127.0.0.1:8081'
		kubectl exec deployment/hello -c hello -- /hello get http://127.0.0.1:8081 | grep 'hello from'
		kubectl port-forward deployment/hello :8081 >forward &
		until grep -q 'Forwarding from' forward; do sleep 0.1; done
		port=$(sed -n 's/Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' forward)
		$HELLO get http://127.0.0.1:$port | grep 'hello from'
		kill %1`)
}

func TestRolloutRestartReplacesEveryPod(t *testing.T) {
	onNode(t, hello+`
		names() { kubectl get pods -l app=hello -o name | sort; }
		names >before
		kubectl rollout restart deployment/hello
		kubectl rollout status deployment/hello --timeout=60s
		until [ "$(names | wc -l)" = 2 ]; do sleep 0.1; done
		names | grep -vqxFf before
		fails bash -c 'kubectl get pods -l app=hello -o name | grep -xFf before'`)
}

func TestDeletedPodIsToldAndGivenTime(t *testing.T) {
	onNode(t, hello+`
		kubectl logs -f client >log &
		until grep -q serving log; do sleep 0.1; done
		kubectl delete pod client --timeout=25s
		wait
		grep 'told to end' log`)
}

func TestCrashedContainerIsStartedAgainInItsPod(t *testing.T) {
	onNode(t, hello+`
		uid() { kubectl get pod client -o jsonpath='{.metadata.uid}'; }
		before=$(uid)
		fails kubectl exec client -- /hello get http://127.0.0.1:8080/crash
		kubectl wait --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 pod/client --timeout=60s
		kubectl wait --for=condition=Ready pod/client --timeout=60s
		kubectl get pod client -o jsonpath='{.status.containerStatuses[0].lastState.terminated.exitCode}' | grep -x 3
		kubectl logs client --previous | grep serving
		[ $before = $(uid) ]`)
}

func TestPodAsksTheAPIServerWithItsOwnToken(t *testing.T) {
	onNode(t, hello+`
		kubectl exec client -- /hello pods | grep '403 Forbidden'
		kubectl create rolebinding reader --clusterrole=view --serviceaccount=$NAMESPACE:default
		until kubectl exec client -- /hello pods | grep '"name": *"client"'; do sleep 0.1; done`)
}

func TestLocalVolumeOutlivesItsPod(t *testing.T) {
	onNode(t, `
		mkdir kept
		sed "s|FOLDER|$PWD/kept|; s|NAMESPACE|$NAMESPACE|" testdata/volume.yaml | kubectl apply -f -
		kubectl wait --for=condition=Ready pod/writer --timeout=60s
		kubectl delete pod writer
		grep remembered kept/note`)
}

func TestImagesAreLoadedWhileTheNodeRuns(t *testing.T) {
	onNode(t, `
		"$PACK" later:1 "$HELLO" later.tar
		"$TIDINGS_NODE/load" later.tar
		kubectl run later --image=later:1 --image-pull-policy=Never -- serve :8080
		kubectl wait --for=condition=Ready pod/later --timeout=60s
		fails "$TIDINGS_NODE/load" testdata/hello.yaml`)
}

func TestPodsGoOnWhileTheAPIServerIsAway(t *testing.T) {
	onNode(t, hello+`
		address=$(kubectl get service hello -o jsonpath='{.spec.clusterIP}')
		../controlplane/apiserver stop
		$HELLO get http://$address | grep 'hello from hello-'
		../controlplane/apiserver start
		kubectl scale deployment/hello --replicas=3
		kubectl rollout status deployment/hello --timeout=90s`)
}
