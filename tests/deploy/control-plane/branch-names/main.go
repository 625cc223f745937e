// branch-names renders a template as Argo CD's ApplicationSet does for a generator of branches: it reads branches, one a
// line, and prints what the template in its argument makes of each.
package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

var invalid = regexp.MustCompile("[^-a-z0-9.]")

// normalized is SanitizeName of Argo CD's applicationset/utils.
func normalized(name string) string {
	name = invalid.ReplaceAllString(strings.ToLower(name), "-")
	if len(name) > 253 {
		name = name[:253]
	}
	return strings.Trim(name, "-.")
}

func main() {
	functions := sprig.TxtFuncMap()
	for _, name := range []string{"env", "expandenv", "getHostByName"} {
		delete(functions, name)
	}
	parsed := template.Must(template.New("name").Funcs(functions).Option("missingkey=error").Parse(os.Args[1]))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		values := map[string]any{"branch": lines.Text(), "branchNormalized": normalized(lines.Text())}
		if err := parsed.Execute(os.Stdout, values); err != nil {
			panic(err)
		}
		fmt.Println()
	}
}
