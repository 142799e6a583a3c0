// Search runs in a worker, and browsers start no worker for a page that was opened from the file system.
// There the worker's script runs in a hidden frame instead. Pages from a server keep the browser's own workers.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.onmessage = this.onerror = this.onmessageerror = null
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.documentElement.appendChild(this.frame)
      const inner = this.frame.contentWindow
      inner.postMessage = (data) => setTimeout(() => this.onmessage?.({ data }))
      const script = inner.document.createElement("script")
      script.src = new URL(url, document.baseURI)
      script.onload = () => {
        this.ready = true
        for (const data of this.waiting.splice(0)) this.postMessage(data)
      }
      script.onerror = (event) => this.onerror?.(event)
      inner.document.documentElement.appendChild(script)
    }

    postMessage(data) {
      if (this.ready) setTimeout(() => this.frame.contentWindow?.onmessage?.({ data }))
      else this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
