# LemonLDAP::NG on a free port of the loopback interface. Every start generates a new key.
#
# FOLDER is a folder for its files, REDIRECT_URI the redirect URI of the client `web`, and
# POST_LOGOUT_REDIRECT_URI that after sign-out. The first line of output is the issuer. Users are those of the demonstration back end, whose passwords are their names.
# Each access token also has the audiences of its client, and so has each ID token.

use strict;
use warnings;
use Crypt::OpenSSL::RSA;
use HTTP::Server::PSGI;
use IO::Socket::INET;
use JSON;
use Lemonldap::NG::Portal::Main;

# Serves each connection in its own process, because a browser opens connections before it needs them.
package Forking {
    our @ISA = ('HTTP::Server::PSGI');

    sub handle_connection {
        my ( $self, @connection ) = @_;
        return if fork;
        $self->SUPER::handle_connection(@connection);
        POSIX::_exit(0);
    }
}

my ( $folder, $redirect_uri ) = @ENV{qw(FOLDER REDIRECT_URI)};
my $listener = IO::Socket::INET->new( Listen => 128, LocalAddr => '127.0.0.1' ) or die $!;
my $issuer   = 'http://127.0.0.1:' . $listener->sockport . '/';

my $signing_key = Crypt::OpenSSL::RSA->generate_key(2048);

sub storage {
    my ($name) = @_;
    mkdir "$folder/$name";
    mkdir "$folder/$name/lock";
    return { Directory => "$folder/$name", LockDirectory => "$folder/$name/lock" };
}

sub client {
    my ( $id, %options ) = @_;
    %options = (
        ClientID                    => $id,
        ClientSecret                => "$id-s3cret",
        AccessTokenClaims           => 1,
        AccessTokenJWT              => 1,
        AccessTokenSignAlg          => 'RS256',
        AllowClientCredentialsGrant => 1,
        AllowOffline                => 1,
        AllowPasswordGrant          => 1,
        BypassConsent               => 1,
        IDTokenSignAlg              => 'RS256',
        RefreshToken                => 1,
        %options,
    );
    return { map { ( "oidcRPMetaDataOptions$_" => $options{$_} ) } keys %options };
}

my %claims = (
    email  => 'mail',
    groups => 'groups;array;always',
    name   => 'cn',
    tenant => 'tenant',
);
my %configuration = (
    cfgNum                            => 1,
    cfgDate                           => 1,
    cfgVersion                        => $Lemonldap::NG::Portal::Main::VERSION,
    portal                            => $issuer,
    domain                            => '127.0.0.1',
    securedCookie                     => 0,
    key                               => 'a key for cookies',
    authentication                    => 'Demo',
    userDB                            => 'Same',
    demoExportedVars                  => { cn => 'cn', mail => 'mail', uid => 'uid' },
    groups                            => { docs_internal => '$uid eq "dwho"' },
    locationRules                     => {},
    macros                            => { tenant => '"tardis"' },
    globalStorage                     => 'Apache::Session::File',
    globalStorageOptions              => storage('sessions'),
    persistentStorage                 => 'Apache::Session::File',
    persistentStorageOptions          => storage('persistent'),
    requireToken                      => 0,
    # The default needs an image library. No form has a captcha.
    captcha                           => '::Lib::OneTimeToken',
    portalDisplayRegister             => 0,
    portalDisplayResetPassword        => 0,
    issuerDBOpenIDConnectActivation   => 1,
    oidcServiceMetaDataAuthnContext   => { 'loa-1' => 1 },
    oidcServicePrivateKeySig          => $signing_key->get_private_key_string,
    oidcServicePublicKeySig           => $signing_key->get_public_key_x509_string,
    oidcServiceKeyIdSig               => 'key-1',
    oidcRPMetaDataOptions             => {
        web => client(
            'web',
            AdditionalAudiences => 'https://wave.example https://drive.example',
            RedirectUris        => $redirect_uri,
            PostLogoutRedirectUris => $ENV{POST_LOGOUT_REDIRECT_URI},
        ),
        other => client( 'other', AdditionalAudiences => 'https://drive.example' ),
    },
    oidcRPMetaDataExportedVars        => { web => \%claims, other => \%claims },
    oidcRPMetaDataOptionsExtraClaims  => { web => { profile => 'name groups tenant' } },
);
mkdir "$folder/conf";
open my $file, '>', "$folder/conf/lmConf-1.json" or die $!;
print {$file} encode_json( \%configuration );
close $file;

my $portal = Lemonldap::NG::Portal::Main->run(
    {
        configStorage       => { type => 'File', dirName => "$folder/conf" },
        localSessionStorage => '',
        logLevel            => $ENV{LOG_LEVEL} // 'warn',
        staticPrefix        => '/static',
        templateDir         => '/usr/share/lemonldap-ng/portal/templates',
    }
);
$SIG{CHLD} = 'IGNORE';
$| = 1;
print "$issuer\n";
Forking->new( listen_sock => $listener )->run($portal);
