"""The paper's tables, made again: rows as data, a resumable run over them, a page that says so."""
