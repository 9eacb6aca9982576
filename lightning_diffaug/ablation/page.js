"use strict";
for (const button of document.querySelectorAll("button[data-table]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const rows = JSON.parse(document.getElementById(button.dataset.table).textContent);
    const columns = [...new Set(rows.flatMap(Object.keys))];
    const field = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
    const text = lines.map((line) => line.map(field).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = button.dataset.file;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
