// Every alert of the chart, on the numbers of a night on which it must wake somebody and of one on which it must not.
package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// A night: what is scraped each minute for twelve hours, and the alerts that fire at its end.
type night struct {
	name   string
	series string
	fire   []string
}

const (
	server = `auth_namespace="auth",auth_server="logto",pod="logto-0"`
	mail   = server + `,namespace="shop",webhook="mail"`
	crm    = server + `,namespace="crm",webhook="sync"`
	report = server + `,namespace="bi",webhook="report"`
	leader = `tidings_operator_leader{namespace="tidings-system",pod="a"} 1x720`
)

// Most are quiet until their last hour.
var nights = []night{
	{"all is well", leader + `
		up{job="tidings-system/tidings-sidecar",` + server + `} 1x720
		tidings_events_refused_total{reason="NoSpace",` + server + `} 0x720
		tidings_events_refused_total{reason="BadSignature",` + server + `} 3x720
		tidings_plan_generation{` + server + `} 7x720
		tidings_operator_plan_generation{namespace="auth",auth_server="logto",pod="a"} 7x720
		tidings_plan_webhooks_rejected{` + server + `} 0x720
		tidings_store_available{` + server + `} 1x720
		tidings_store_free_bytes{` + server + `} 2000000000x720
		tidings_attempts_total{outcome="Delivered",` + server + `} 0+60x720
		tidings_attempts_total{outcome="HttpStatus",` + server + `} 0+1x720
		tidings_store_damaged_events_total{` + server + `} 2x720
		tidings_webhook_expired_total{` + mail + `} 0x720
		tidings_webhook_dead_letters_total{` + mail + `} 2x720
		tidings_webhook_circuit_open{` + mail + `} 0x720
		tidings_webhook_pending{` + mail + `} 3x720
		tidings_webhook_oldest_pending_age_seconds{` + mail + `} 1x720
		tidings_operator_plan_publications_total{result="success",pod="a"} 0+1x720
		tidings_operator_status_writes_total{result="error",pod="a"} 4x720`, nil},
	{"the disk is full", leader + `
		tidings_events_refused_total{reason="NoSpace",` + server + `} 0x717 1+9x2
		tidings_store_free_bytes{` + server + `} 2000000000x700 60000000x20`,
		[]string{"TidingsEventsLost", "TidingsStoreNearlyFull"}},
	{"a Webhook comes back to the plan, and lost events meanwhile", leader + `
		tidings_webhook_expired_total{` + mail + `} _x715 1788x5`,
		[]string{"TidingsEventsExpired"}},
	{"another pod goes on with the volume of a Webhook that lost events long ago", leader + `
		tidings_webhook_expired_total{` + mail + `} 7x700 _x20
		tidings_webhook_expired_total{` + strings.Replace(mail, "logto-0", "logto-1", 1) + `} _x701 7x19`, nil},
	{"the disk damages an event", leader + `
		tidings_store_damaged_events_total{` + server + `} 0x700 1x20`,
		[]string{"TidingsEventsDamaged"}},
	{"a sidecar starts on a damaged disk", leader + `
		tidings_store_damaged_events_total{` + server + `} _x715 3x5`,
		[]string{"TidingsEventsDamaged"}},
	{"a store is damaged", leader + `
		tidings_store_available{` + server + `} 1x700 0x20`,
		[]string{"TidingsStoreUnavailable"}},
	{"a store is opened", leader + `
		tidings_store_available{` + server + `} 1x718 0x1`, nil},
	{"a sync does not end", leader + `
		tidings_store_commit_running_seconds{` + server + `} 0x714 15+30x5`,
		[]string{"TidingsStoreStuck"}},
	{"a sync takes its time", leader + `
		tidings_store_commit_running_seconds{` + server + `} 0x710 12x1 0x8`, nil},
	{"the disk fills", leader + `
		tidings_store_free_bytes{` + server + `} 2000000000-1500000x720`,
		[]string{"TidingsStoreFilling"}},
	{"a sidecar never had a plan", leader + `
		tidings_plan_generation{` + server + `} 0x720
		tidings_operator_plan_generation{namespace="auth",auth_server="logto",pod="a"} 7x720`,
		[]string{"TidingsNoPlan", "TidingsPlanNotRun"}},
	{"one of two sidecars keeps an old plan", leader + `
		tidings_plan_generation{auth_namespace="auth",auth_server="logto",pod="logto-0"} 8x720
		tidings_plan_generation{auth_namespace="auth",auth_server="logto",pod="logto-1"} 7x720
		tidings_operator_plan_generation{namespace="auth",auth_server="logto",pod="a"} 8x720`,
		[]string{"TidingsPlanNotRun"}},
	{"a sidecar is away", leader + `
		up{job="tidings-system/tidings-sidecar",` + server + `} 1x700 0x20`,
		[]string{"TidingsSidecarDown"}},
	{"a sidecar restarts", leader + `
		up{job="tidings-system/tidings-sidecar",` + server + `} 1x717 0x2`, nil},
	{"the hook has another key", leader + `
		tidings_events_refused_total{reason="BadSignature",` + server + `} 0x680 0+5x40`,
		[]string{"TidingsEventsRejected"}},
	{"a receiver is down for days", leader + `
		tidings_webhook_circuit_open{` + mail + `} 1x720
		tidings_webhook_pending{` + mail + `} 40x720
		tidings_webhook_oldest_pending_age_seconds{` + mail + `} 250000+60x720
		tidings_webhook_dead_letters_total{` + mail + `} 0x700 0+1x20
		tidings_webhook_expired_total{` + mail + `} 0x715 0+1x5
		tidings_attempts_total{outcome="Delivered",` + server + `} 0+60x720
		tidings_attempts_total{outcome="ConnectFailed",` + server + `} 0+1x720`,
		[]string{"TidingsWebhookFailing", "TidingsDeliveriesLate", "TidingsDeadLetters", "TidingsEventsExpired"}},
	{"a circuit is open, and nothing waits", leader + `
		tidings_webhook_circuit_open{` + mail + `} 1x720
		tidings_webhook_pending{` + mail + `} 0x720`, nil},
	{"the way out is closed", leader + `
		tidings_webhook_pending{` + mail + `} 9x720
		tidings_webhook_pending{` + crm + `} 9x720
		tidings_webhook_pending{` + report + `} 9x720
		tidings_attempts_total{outcome="Delivered",` + server + `} 50x720
		tidings_attempts_total{outcome="ConnectFailed",` + server + `} 0+1x720`,
		[]string{"TidingsNothingDelivered"}},
	{"the only receiver that has events is down, for two sidecars", leader + `
		tidings_webhook_pending{` + mail + `} 9x720
		tidings_webhook_pending{auth_namespace="auth",auth_server="logto",pod="logto-1",namespace="shop",webhook="mail"} 9x720
		tidings_webhook_pending{auth_namespace="auth",auth_server="logto",pod="logto-2",namespace="shop",webhook="mail"} 9x720
		tidings_attempts_total{outcome="Delivered",` + server + `} 50x720
		tidings_attempts_total{outcome="ConnectFailed",` + server + `} 0+1x720`, nil},
	{"no operator leads", `tidings_operator_leader{namespace="tidings-system",pod="a"} 0x720`,
		[]string{"TidingsOperatorAway"}},
	{"there is no operator", `other{} 1x720`, []string{"TidingsOperatorAway"}},
	{"a sidecar is older than its plan", leader + `
		tidings_plan_webhooks_rejected{` + server + `} 2x720`,
		[]string{"TidingsWebhooksLeftOut"}},
	{"the operator lacks a right", leader + `
		tidings_operator_plan_publications_total{result="error",pod="a"} 0+1x720`,
		[]string{"TidingsOperatorWritesFail"}},
	{"statuses are refused", leader + `
		tidings_operator_status_writes_total{result="error",pod="a"} 0+3x720`,
		[]string{"TidingsOperatorWritesFail"}},
}

func TestEachAlertFiresOnItsNightsAndOnNoOther(t *testing.T) {
	rules, proven := rulesOfChart(t), map[string]bool{}
	for _, night := range nights {
		t.Run(night.name, func(t *testing.T) {
			expected := map[string]bool{}
			for _, alert := range night.fire {
				expected[alert], proven[alert] = true, true
			}
			scraped := promqltest.LoadedStorage(t, "load 1m\n"+night.series)
			defer scraped.Close()
			for _, rule := range rules {
				if fires(t, rule, scraped) != expected[rule.Alert] {
					t.Errorf("%s: fires is not %v", rule.Alert, expected[rule.Alert])
				}
			}
		})
	}
	for _, rule := range rules {
		if !proven[rule.Alert] {
			t.Errorf("no night proves that %s fires", rule.Alert)
		}
	}
}

func rulesOfChart(t *testing.T) (rules []rulefmt.Rule) {
	text, err := os.ReadFile("../../../charts/tidings/files/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("RELEASE_NAMESPACE", "tidings-system", "RELEASE_NAME", "tidings",
		"FREE_BYTES", "268435456", "PENDING_SECONDS", "21600").Replace(string(text))
	groups, problems := rulefmt.Parse([]byte(filled), false, model.UTF8Validation, promQL)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// fires: the expression has held in every minute of its `for` at the end of the night.
func fires(t *testing.T, rule rulefmt.Rule, scraped storage.Queryable) bool {
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
	end := time.Unix(0, 0).Add(12 * time.Hour)
	for at := end.Add(-time.Duration(rule.For)); !at.After(end); at = at.Add(time.Minute) {
		query, err := engine.NewInstantQuery(context.Background(), scraped, nil, rule.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		result := query.Exec(context.Background())
		if result.Err != nil {
			t.Fatalf("%s: %v", rule.Alert, result.Err)
		}
		if len(result.Value.(promql.Vector)) == 0 {
			return false
		}
	}
	return true
}
