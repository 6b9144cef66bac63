package conform

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Document is a Table for machines. Its systems can be read back, as columns of
// another table.
type Document struct {
	Rows        []Row        `json:"rows"`
	Systems     []System     `json:"systems"`
	Differences []Difference `json:"differences,omitempty"`
}

// WriteJSON writes the table as one Document.
func (t Table) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(Document{t.Rows, t.Systems, t.Differences()})
}

// ReadSystems reads the systems of a Document that WriteJSON wrote, perhaps on
// another machine.
func ReadSystems(file string) ([]System, error) {
	var d Document
	if err := readJSON(file, &d); err != nil {
		return nil, err
	}
	if len(d.Systems) == 0 {
		return nil, fmt.Errorf("%s has no systems; want the output of hvlab conform -json", file)
	}
	return d.Systems, nil
}
