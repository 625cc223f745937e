// etcd, as its own main: that module cannot be built from outside, because it replaces its neighbours by folders.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
