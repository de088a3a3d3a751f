// Parses Modelfiles and renders conversations through their templates with Ollama's own packages.
//
// Reads [{"name", "modelfile", "conversations": [[{"role", "content"}]]}] from standard input. Prints one
// {"name", "from", "stops", "texts"} for each; texts is null if the Modelfile has no template.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

type job struct {
	Name          string          `json:"name"`
	Modelfile     string          `json:"modelfile"`
	Conversations [][]api.Message `json:"conversations"`
}

type answer struct {
	Name  string   `json:"name"`
	From  string   `json:"from"`
	Stops []string `json:"stops"`
	Texts []string `json:"texts"`
}

func main() {
	var jobs []job
	must(json.NewDecoder(os.Stdin).Decode(&jobs), "input")
	answers := make([]answer, len(jobs))
	for i, job := range jobs {
		file, err := parser.ParseFile(strings.NewReader(job.Modelfile))
		must(err, job.Name)
		answers[i] = answer{Name: job.Name, Stops: []string{}}
		for _, command := range file.Commands {
			switch command.Name {
			case "model":
				answers[i].From = command.Args
			case "stop":
				answers[i].Stops = append(answers[i].Stops, command.Args)
			case "template":
				parsed, err := template.Parse(command.Args)
				must(err, job.Name)
				for _, messages := range job.Conversations {
					var text bytes.Buffer
					must(parsed.Execute(&text, template.Values{Messages: messages}), job.Name)
					answers[i].Texts = append(answers[i].Texts, text.String())
				}
			}
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	must(encoder.Encode(answers), "output")
}

func must(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
