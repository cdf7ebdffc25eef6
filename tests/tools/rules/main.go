// The command rules reads Prometheus rules as Prometheus does, and prints the names of the metrics that they use,
// a line each. With --expressions it reads PromQL expressions instead, a line each, as of a dashboard.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

var promQL = parser.NewParser(parser.Options{})

func main() {
	expressions, err := expressions(os.Args[1:], os.Stdin)
	if err == nil {
		err = printMetrics(expressions)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func expressions(arguments []string, in io.Reader) ([]string, error) {
	if len(arguments) == 1 && arguments[0] == "--expressions" {
		return lines(in)
	}
	return ofRules(in)
}

func lines(in io.Reader) (lines []string, err error) {
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, scanner.Err()
}

// ofRules also executes the templates of labels and annotations once, as Prometheus does when it loads rules.
func ofRules(in io.Reader) (expressions []string, err error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	groups, problems := rulefmt.Parse(text, false, model.UTF8Validation, promQL)
	if len(problems) > 0 {
		return nil, fmt.Errorf("%v", problems)
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			expressions = append(expressions, rule.Expr)
		}
	}
	return expressions, nil
}

func printMetrics(expressions []string) error {
	for _, text := range expressions {
		expression, err := promQL.ParseExpr(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok {
				fmt.Println(selector.Name)
			}
			return nil
		})
	}
	return nil
}
