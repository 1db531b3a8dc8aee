package install

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

//go:embed starter
var starter embed.FS

// Starter returns the files of a starter environment repo by path: two
// environments, one cluster of that name, one sample application.
func Starter(cluster string) (map[string][]byte, error) {
	if problems := validation.IsDNS1123Label(cluster); len(problems) > 0 {
		return nil, fmt.Errorf("cluster %q: %s", cluster, problems[0])
	}
	files := map[string][]byte{}
	err := fs.WalkDir(starter, "starter", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := starter.ReadFile(name)
		if err != nil {
			return err
		}
		files[strings.ReplaceAll(strings.TrimPrefix(name, "starter/"), "CLUSTER", cluster)] = content
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, taken := files[path.Join("clusters", cluster, cluster+".yaml")]; taken {
		return nil, fmt.Errorf("cluster %q: the starter has an Application of that name, and the cluster's root needs one; choose another name", cluster)
	}
	return files, nil
}
