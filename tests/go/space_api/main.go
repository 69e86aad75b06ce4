// Runs the predecessor's client, as it is, and prints what it is told:
// space_api ADDRESS PROJECT TOKEN
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"sort"
	"strings"
	"time"

	client "github.com/spaceuptech/space-api-go"
	"github.com/spaceuptech/space-api-go/api/model"
	"github.com/spaceuptech/space-api-go/api/service"
	"github.com/spaceuptech/space-api-go/api/sql"
	"github.com/spaceuptech/space-api-go/api/utils"
)

type told struct {
	Status int         `json:"status"`
	Error  string      `json:"error"`
	Result interface{} `json:"result"`
}

type snapshot struct {
	Type string   `json:"type"`
	Ids  []string `json:"ids"`
}

func of(response *model.Response, err error) told {
	if err != nil {
		log.Fatal(err)
	}
	said := told{response.Status, response.Error, nil}
	if len(response.Data) > 0 {
		if err := json.Unmarshal(response.Data, &said.Result); err != nil {
			log.Fatal(err)
		}
	}
	return said
}

func next[T any](values chan T) T {
	select {
	case value := <-values:
		return value
	case <-time.After(30 * time.Second):
		log.Fatal("nothing is told")
		panic("unreachable")
	}
}

func rows(db *sql.SQL) map[string]told {
	where := func(f1, eval string, f2 interface{}) utils.M { return utils.Cond(f1, eval, f2) }
	todos := func(id string, n int) utils.M { return utils.M{"id": id, "owner": "go", "n": n} }
	said := map[string]told{}
	said["insert"] = of(db.Insert("todos").Doc(todos("a", 1)).Apply())
	said["docs"] = of(db.Insert("todos").Docs([]utils.M{todos("b", 2), todos("c", 3)}).Apply())
	sorted := db.Get("todos").Where(where("n", ">", 1)).Select(map[string]int32{"id": 1, "n": 1})
	said["sorted"] = of(sorted.Sort("-n").Limit(2).Apply())
	said["update"] = of(db.Update("todos").Where(where("id", "==", "a")).Set(utils.M{"n": 7}).Apply())
	said["one"] = of(db.GetOne("todos").Where(where("id", "==", "a")).Apply())
	batch := db.BeginBatch()
	for _, request := range []sql.Request{
		db.Insert("todos").Doc(todos("d", 4)),
		db.Delete("todos").Where(where("id", "==", "b")),
	} {
		if err := batch.Add(&request); err != nil {
			log.Fatal(err)
		}
	}
	said["batch"] = of(batch.Apply())
	said["delete"] = of(db.Delete("todos").Where(where("id", "==", "c")).Apply())
	said["left"] = of(db.Get("todos").Sort("id").Apply())
	return said
}

func live(db *sql.SQL) []snapshot {
	seen := make(chan snapshot, 10)
	query := db.LiveQuery("todos").Where(utils.Cond("owner", "==", "go"))
	query.Subscribe(func(data *model.LiveData, change string, _ *model.ChangedData) {
		var docs []map[string]interface{}
		if err := data.Unmarshal(&docs); err != nil {
			log.Fatal(err)
		}
		ids := []string{}
		for _, doc := range docs {
			ids = append(ids, doc["id"].(string))
		}
		sort.Strings(ids)
		seen <- snapshot{change, ids}
	}, func(err error) { log.Fatal(err) })
	all := []snapshot{next(seen)}
	of(db.Insert("todos").Doc(utils.M{"id": "e", "owner": "go", "n": 5}).Apply())
	all = append(all, next(seen))
	of(db.Delete("todos").Where(utils.Cond("id", "==", "a")).Apply())
	return append(all, next(seen))
}

func main() {
	address, project, token := os.Args[1], os.Args[2], os.Args[3]
	api, err := client.New(project, address, false)
	if err != nil {
		log.Fatal(err)
	}
	anonymous := of(api.Postgres().Get("secret").Apply())
	api.SetToken(token)
	db := api.Postgres()
	said := map[string]interface{}{"anonymous": anonymous, "rows": rows(db), "seen": live(db)}

	worker := api.Service("mail")
	worker.RegisterFunc("send", func(params, auth *model.Message, answer service.CallBackFunction) {
		var asked, caller map[string]interface{}
		if params.Unmarshal(&asked) != nil || auth.Unmarshal(&caller) != nil {
			log.Fatal("a call is not JSON")
		}
		answer("response", utils.M{"sent": asked["to"], "by": caller["id"]})
	})
	go worker.Start()
	var called told
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if called = of(api.Call("mail", "send", utils.M{"to": "x"}, 5)); called.Status != 503 {
			break
		}
	}
	said["call"] = called

	files := api.Filestore()
	content := strings.Repeat("0123456789", 100_000)
	uploaded := of(files.UploadFile("/docs", "a.txt", strings.NewReader(content)))
	var downloaded bytes.Buffer
	if err := files.DownloadFile("/docs/a.txt", &downloaded); err != nil {
		log.Fatal(err)
	}
	said["files"] = map[string]interface{}{
		"upload": uploaded,
		"list":   of(files.ListFiles("/docs")),
		"same":   downloaded.String() == content,
		"folder": of(files.CreateFolder("/docs", "deep")),
		"delete": of(files.DeleteFile("/docs/a.txt")),
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}
