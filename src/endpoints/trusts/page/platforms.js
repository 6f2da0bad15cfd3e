// The platforms of the guided form: the questions, and the trust that the answers make.

import { comment, list, rule, string, trust, words } from "./toml.js";

const LABEL = /^[A-Za-z0-9_.-]{1,64}$/;
const GUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const ask = (name, label, help, more = {}) => ({ name, label, help, ...more });
const number = { pattern: /^\d+$/, hint: "Digits only." };
const https = { pattern: /^https:\/\/[^\s]+$/, hint: "Begins with https://." };
const guid = { pattern: GUID, hint: "A GUID such as 72f988bf-86f1-41af-91ab-2d7cd011db47." };

/// Questions for each trust.
export const trustQuestions = suggestion => [
  ask("id", "Name of the trust", "Appears in the log and in identities.", { pattern: LABEL, hint: "1 to 64 letters, digits, -, _ or .", value: suggestion }),
  ask("audience", "Audience", "The workload requests its token for this audience. Choose one that only this service has.", { example: "scaivault" }),
];

/// Questions for each rule.
export const ruleQuestions = tenant => [
  ask("rule", "Name of the rule", "Appears in the log.", { pattern: LABEL, hint: "1 to 64 letters, digits, -, _ or .", example: "deploy" }),
  ask("tenant", "Tenant", "The workload acts in this tenant.", { value: tenant ?? "", fixed: Boolean(tenant), example: "tnt_acme_prod" }),
  ask("scopes", "Scopes", "The most that the workload may get, separated by spaces.", { example: "secrets:read" }),
];

/// The text of a trust: `authority` and `more` are pairs of a name and a value in TOML.
const trustOf = (answers, { authority, algorithms, lifetime, more = [] }, conditions) => trust([
  ["id", string(answers.id)],
  ...authority,
  ["algorithms", algorithms && list(algorithms)],
  ["audiences", list([answers.audience])],
  ["max_lifetime", string(lifetime)],
  ...more,
  ["mode", answers.mode],
], [rule({ name: answers.rule, tenant: answers.tenant, scopes: words(answers.scopes), ...conditions })]);

/// How a service in the cluster gets its keys.
const CLUSTER_KEYS = '{ url = "https://kubernetes.default.svc/openid/v1/jwks", ca_file = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", bearer_file = "/var/run/secrets/kubernetes.io/serviceaccount/token" }';

export const PLATFORMS = [
  {
    id: "kubernetes", name: "Kubernetes", sign: "K8s", suggestion: "k8s-prod",
    about: "Pods send a projected service account token.",
    questions: [
      ask("issuer", "Issuer of the cluster", "`kubectl get --raw /.well-known/openid-configuration` shows it.", { ...https, example: "https://oidc.prod-eu.example" }),
      ask("keys", "Keys", "How this service gets the keys of the cluster.", { choices: [["discovery", "From the issuer's address"], ["cluster", "From the API server: this service runs in the cluster"]] }),
      ask("namespace", "Namespace", "The namespace of the workload.", { pattern: /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/, hint: "Lower-case letters, digits and -.", example: "reports" }),
      ask("account", "Service account", "The service account of the workload.", { pattern: /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, hint: "Lower-case letters, digits, - and .", example: "reporter" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["issuer", string(answers.issuer)], ["jwks", answers.keys === "cluster" ? CLUSTER_KEYS : null]],
      algorithms: ["RS256", "ES256"], lifetime: "2h",
    }, { subject: `system:serviceaccount:${answers.namespace}:${answers.account}`, identity: "sa:{trust}:{sub}" }),
  },
  {
    id: "github", name: "GitHub Actions", sign: "GH", suggestion: "github",
    about: "Jobs send an OIDC token. The numbers of a repository never change, names can.",
    questions: [
      ask("repository", "Number of the repository", "`gh api repos/OWNER/NAME --jq .id` shows it.", { ...number, example: "7411" }),
      ask("owner", "Number of the owner", "`gh api repos/OWNER/NAME --jq .owner.id` shows it.", { ...number, example: "65" }),
      ask("branch", "Branch", "Only jobs of this branch match.", { example: "main", value: "main" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["issuer", string("https://token.actions.githubusercontent.com")]],
      algorithms: ["RS256"], lifetime: "15m", more: [["single_use_jti", "true"]],
    }, {
      claims: [["repository_id", "eq", string(answers.repository)], ["repository_owner_id", "eq", string(answers.owner)], ["ref", "eq", string(`refs/heads/${answers.branch}`)]],
      identity: "sa:{trust}:{repository_id}",
    }),
  },
  {
    id: "gitlab", name: "GitLab", sign: "GL", suggestion: "gitlab",
    about: "Jobs send an ID token. The numbers of a project never change, names can.",
    questions: [
      ask("issuer", "GitLab instance", "https://gitlab.com, or the address of your own instance.", { ...https, value: "https://gitlab.com" }),
      ask("project", "Number of the project", "The settings of the project show it.", { ...number, example: "20" }),
      ask("group", "Number of the group", "The number of the namespace of the project.", { ...number, example: "72" }),
      ask("branch", "Protected branch", "Only jobs of this branch match, while it is protected.", { value: "main" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["issuer", string(answers.issuer)]],
      algorithms: ["RS256"], lifetime: "1h", more: [["single_use_jti", "true"]],
    }, {
      claims: [["project_id", "eq", string(answers.project)], ["namespace_id", "eq", string(answers.group)], ["ref_type", "eq", string("branch")], ["ref", "eq", string(answers.branch)], ["ref_protected", "eq", string("true")]],
      identity: "sa:{trust}:{project_id}",
    }),
  },
  {
    id: "aws", name: "AWS", sign: "AWS", suggestion: "aws",
    about: "Workloads get a token by `aws sts get-web-identity-token`. Each account has its own issuer.",
    questions: [
      ask("issuer", "Issuer of the account", "`aws iam get-outbound-web-identity-federation-info` shows it.", { ...https, example: "https://abc12345-def4-5678.tokens.sts.global.api.aws" }),
      ask("account", "Account number", "The AWS account of the role.", { pattern: /^\d{12}$/, hint: "12 digits.", example: "123456789012" }),
      ask("role", "Role", "The name of the role that the workload has.", { pattern: /^[\w+=,.@/-]+$/, hint: "A role name, with its path if it has one.", example: "reporting" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["issuer", string(answers.issuer)]],
      algorithms: ["RS256", "ES384"], lifetime: "1h",
    }, { subject: `arn:aws:iam::${answers.account}:role/${answers.role}`, identity: `sa:{trust}:${answers.rule}` }),
  },
  {
    id: "gcp", name: "Google Cloud", sign: "GCP", suggestion: "gcp",
    about: "Workloads send an ID token from the metadata server.",
    questions: [
      ask("account", "Unique id of the service account", "`gcloud iam service-accounts describe EMAIL --format 'value(uniqueId)'` shows it.", { ...number, example: "108712345678901234567" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["issuer", string("https://accounts.google.com")]],
      algorithms: ["RS256"], lifetime: "1h",
    }, { subject: answers.account, identity: "sa:{trust}:{sub}" }),
  },
  {
    id: "azure", name: "Azure", sign: "Az", suggestion: "azure",
    about: "Managed identities send a token for your app registration. Its audience is the registration's.",
    questions: [
      ask("directory", "Entra tenant id", "The directory of the managed identity.", { ...guid, example: "72f988bf-86f1-41af-91ab-2d7cd011db47" }),
      ask("object", "Object id of the managed identity", "The portal shows it on the page of the identity.", { ...guid, example: "b7e7f0de-6a2b-4e6b-9f8d-0f6f1c2d3e4f" }),
      ask("version", "Version of the tokens", "`requestedAccessTokenVersion` of the app registration.", { choices: [["1", "v1: not set, or 1"], ["2", "v2: set to 2"]] }),
    ],
    write: answers => {
      const [directory, object] = [answers.directory, answers.object].map(id => id.toLowerCase());
      const v1 = [["issuer", string(`https://sts.windows.net/${directory}/`)],
        ["discovery_url", string(`https://login.microsoftonline.com/${directory}/.well-known/openid-configuration`)]];
      const v2 = [["issuer", string(`https://login.microsoftonline.com/${directory}/v2.0`)]];
      return trustOf(answers, { authority: answers.version === "2" ? v2 : v1, algorithms: ["RS256"], lifetime: "25h" },
        { claims: [["oid", "eq", string(object)], ["tid", "eq", string(directory)]], identity: "sa:{trust}:{oid}" });
    },
  },
  {
    id: "spiffe", name: "SPIFFE", sign: "SP", suggestion: "mesh",
    about: "Workloads of a trust domain, for example of SPIRE, send a JWT-SVID.",
    questions: [
      ask("domain", "Trust domain", "Without spiffe://.", { pattern: /^[a-z0-9._-]{1,255}$/, hint: "Lower-case letters, digits, ., - and _.", example: "prod.acme.example" }),
      ask("bundle", "Bundle endpoint", "The address of the trust bundle, with a certificate of a public CA.", { ...https, example: "https://bundle.acme.example" }),
      ask("path", "Path of the workload", "What follows the trust domain in the SPIFFE ID. A * stands for one whole segment.", { pattern: /^\/[A-Za-z0-9._*/-]+[^/]$/, hint: "Begins with / and does not end with it.", example: "/ns/reports/sa/reporter" }),
    ],
    write: answers => trustOf(answers, {
      authority: [["trust_domain", string(answers.domain)], ["bundle", `{ url = ${string(answers.bundle)} }`]],
      lifetime: "1h",
    }, { subject: `spiffe://${answers.domain}${answers.path}`, identity: "sa:{trust}:{sub}" }),
  },
];

/// The platform of an issuer, for its sign. Nothing depends on it.
export function platformOf({ issuer, trust_domain: domain }) {
  if (domain) return sign("spiffe");
  const known = [
    [/token\.actions\.githubusercontent\.com/, "github"], [/gitlab/, "gitlab"],
    [/accounts\.google\.com/, "gcp"], [/sts\.windows\.net|login\.microsoftonline\.com/, "azure"],
    [/tokens\.sts\..*\.aws/, "aws"], [/\.eks\.|container\.googleapis\.com|prod-aks|kubernetes|k8s|cluster/, "kubernetes"],
  ];
  const match = known.find(([pattern]) => pattern.test(issuer ?? ""));
  return match ? sign(match[1]) : { id: "other", name: "Other issuer", sign: "ID" };
}

const sign = id => PLATFORMS.find(platform => platform.id === id);

/// The text of a new trust, with a comment that names its platform.
export const writeTrust = (platform, answers) => `${comment(platform.name)}\n${platform.write(answers)}`;
