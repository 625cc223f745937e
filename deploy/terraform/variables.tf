variable "environment" {
  description = "The environment: the name of its overlay and of its Argo CD project."
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "The environment is staging or production."
  }
}

variable "namespace" {
  description = "Its namespace. Null: that of the overlay, which Argo CD needs; Helm installs into any."
  type        = string
  default     = null

  validation {
    condition     = var.namespace == null || can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "The namespace has at most 63 of a-z, 0-9 and -, and neither begins nor ends with -."
  }
}

variable "namespace_labels" {
  description = "Labels of the namespace in addition to those that the manifests rely on."
  type        = map(string)
  default     = {}
}

variable "installer" {
  description = "What installs the services and NATS: argocd makes an Application, helm installs the chart, none leaves it to others."
  type        = string
  default     = "argocd"

  validation {
    condition     = contains(["argocd", "helm", "none"], var.installer)
    error_message = "The installer is argocd, helm or none."
  }
}

variable "repository" {
  description = "The address of this repository in git, for Argo CD."
  type        = string
  default     = "https://git.agentforge.internal/agentforge/agentforge.git"

  validation {
    condition     = can(regex("^(https://|ssh://|git@)", var.repository))
    error_message = "The repository is an https or ssh address."
  }
}

variable "revision" {
  description = "The branch, tag or commit that Argo CD follows."
  type        = string
  default     = "main"

  validation {
    condition     = length(var.revision) > 0
    error_message = "The revision is not empty."
  }
}

variable "argocd_namespace" {
  description = "Where Argo CD is."
  type        = string
  default     = "argocd"
}

variable "registry" {
  description = "Goes before the names of the images, for Helm; with Argo CD the overlay names them."
  type        = string
  default     = "registry.agentforge.internal/agentforge"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.:_/-]*[a-z0-9]$", var.registry))
    error_message = "The registry is a host with a path, without a scheme and without a / at its end."
  }
}

variable "image_tag" {
  description = "A commit's full name or a release, for Helm. Needed with installer helm."
  type        = string
  default     = null

  validation {
    condition     = var.image_tag == null || can(regex("^([0-9a-f]{40}|v?[0-9]+\\.[0-9]+\\.[0-9]+)$", var.image_tag))
    error_message = "The tag is the full name of a commit, or a release such as 0.3.0: never latest."
  }
}

variable "database" {
  description = "The managed PostgreSQL, and for Helm the range of its addresses. User and password are in the Secret orchestrator-database."
  type = object({
    host = string
    cidr = optional(string, "10.0.64.0/24")
  })

  validation {
    condition     = can(regex("^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", var.database.host))
    error_message = "The host is a name, without a scheme, port or path."
  }

  validation {
    condition     = can(cidrhost(var.database.cidr, 0))
    error_message = "The range is written as 10.0.64.0/24."
  }
}

variable "secret_store" {
  description = "A store of External Secrets that has every Secret below a path. Null: the Secrets are there before, by scripts/make-secrets or a vault."
  type = object({
    name = string
    kind = optional(string, "SecretStore")
    path = string
  })
  default = null

  validation {
    condition     = var.secret_store == null || contains(["SecretStore", "ClusterSecretStore"], try(var.secret_store.kind, ""))
    error_message = "The kind is SecretStore or ClusterSecretStore."
  }
}

variable "service_account_annotations" {
  description = "Annotations by service account, such as the cloud identity of the orchestrator."
  type        = map(map(string))
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.service_account_annotations) : contains(local.service_accounts, name)])
    error_message = "A name is not one of the service accounts of the manifests."
  }
}

variable "deployer" {
  description = "Makes a service account that may edit the namespace, for a pipeline."
  type        = bool
  default     = false
}

variable "helm_values" {
  description = "More values of the chart, as YAML, for installer helm: they win."
  type        = list(string)
  default     = []
}
